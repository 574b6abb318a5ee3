package store_test

import (
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/google/uuid"

	"appview/store"
	"appview/store/storetest"
)

func TestCommitsAreMeasured(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var seen []store.Commit
	st := storetest.OpenConfig(t, store.Config{Path: filepath.Join(t.TempDir(), "appview.db"), Observe: func(o store.Commit) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, o)
	}})
	for range 3 {
		if _, err := st.CreateJob(t.Context(), uuid.New(), store.Request{}, nil); err != nil {
			t.Fatal(err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	changes := 0
	for _, o := range seen {
		if o.Took <= 0 || o.Changes <= 0 || o.Bytes < 0 {
			t.Errorf("got %+v", o)
		}
		changes += o.Changes
	}
	if changes != 3 {
		t.Errorf("%d changes were measured, 3 were made", changes)
	}
}

func TestLoad(t *testing.T) {
	t.Parallel()
	const free = 7 << 30
	st := storetest.OpenConfig(t, store.Config{
		Path: filepath.Join(t.TempDir(), "appview.db"), FreeSpace: func(string) (uint64, error) { return free, nil },
	})
	l, err := st.Load(t.Context())
	if err != nil || l != (store.Load{FreeDisk: free}) {
		t.Errorf("got %+v %v", l, err)
	}
	if all := store.Statuses(); !slices.Contains(all, store.StatusRunning) || !slices.Contains(all, store.StatusFailed) {
		t.Errorf("statuses %v", all)
	}
}
