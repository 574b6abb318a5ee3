package store_test

import (
	"path/filepath"
	"testing"

	"appview/store"
	"appview/store/storetest"
)

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
}
