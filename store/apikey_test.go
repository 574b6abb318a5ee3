package store_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"appview/store"
	"appview/store/storetest"
)

// putKey stores a key with permissions and returns its id.
func putKey(tb testing.TB, s *store.Store, secret string, change func(*store.APIKey), permissions ...string) uuid.UUID {
	tb.Helper()
	k := store.APIKey{ID: uuid.New(), Name: secret[3:], Prefix: secret[:5], Permissions: permissions, CreatedAt: time.Now()}
	if change != nil {
		change(&k)
	}
	if err := s.PutAPIKey(asAdmin(tb), secret, k); err != nil {
		tb.Fatal(err)
	}
	return k.ID
}

func keyOf(tb testing.TB, s *store.Store, secret string) store.APIKey {
	tb.Helper()
	k, err := s.APIKey(tb.Context(), secret)
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

func TestRevokedKeyStaysRevoked(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t)
	id := putKey(t, s, "hv_reader", nil, "stats:read")
	if err := s.RevokeAPIKey(asAdmin(t), id, false); err != nil {
		t.Fatal(err)
	}
	first := keyOf(t, s, "hv_reader")
	if first.RevokedAt.IsZero() || first.Usable(time.Now()) {
		t.Errorf("revoked key: %+v", first)
	}
	if err := s.RevokeAPIKey(asAdmin(t), id, false); err != nil {
		t.Errorf("revoke again: %v", err)
	}
	if err := s.PutAPIKey(asAdmin(t), "hv_reader", store.APIKey{ID: uuid.New(), Permissions: []string{"*"}}); !errors.Is(err, store.ErrExists) {
		t.Errorf("a revoked key is made anew: %v", err)
	}
	if again := keyOf(t, s, "hv_reader"); !again.RevokedAt.Equal(first.RevokedAt) || again.ID != id {
		t.Errorf("revoked again: %+v", again)
	}
	if err := s.RevokeAPIKey(asAdmin(t), uuid.New(), false); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("revoke nothing: %v", err)
	}
	wantAudit(t, s, "key:create "+id.String()+" (reader (hv_re…): stats:read) done", "key:revoke "+id.String()+" (reader (hv_re…): stats:read) done")
}

func TestLastAdminKeyIsNotRevokedUnknowingly(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t)
	putKey(t, s, "hv_reader", nil, "stats:read", "keys:manage")
	putKey(t, s, "hv_expired", func(k *store.APIKey) { k.ExpiresAt = time.Now().Add(-time.Minute) }, "*")
	first := putKey(t, s, "hv_first", nil, "*")
	if err := s.RevokeAPIKey(t.Context(), first, false); !errors.Is(err, store.ErrLastAdmin) {
		t.Errorf("the last one: %v", err)
	}
	second := putKey(t, s, "hv_second", nil, "*")
	// Of two who revoke each other's key at the same time one is too late.
	var wg sync.WaitGroup
	errs := make([]error, 2)
	for i, id := range []uuid.UUID{first, second} {
		wg.Go(func() { errs[i] = s.RevokeAPIKey(t.Context(), id, false) })
	}
	wg.Wait()
	if (errs[0] == nil) == (errs[1] == nil) || !errors.Is(errors.Join(errs...), store.ErrLastAdmin) {
		t.Errorf("revoked %v", errs)
	}
	for _, id := range []uuid.UUID{first, second} {
		if err := s.RevokeAPIKey(t.Context(), id, true); err != nil {
			t.Errorf("knowingly: %v", err)
		}
	}
}

func TestKeysAreBounded(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t)
	var wg sync.WaitGroup
	for i := range 1_000 {
		wg.Go(func() {
			putKey(t, s, fmt.Sprintf("hv_key-%d", i), func(k *store.APIKey) {
				switch i {
				case 7:
					k.RevokedAt = time.Now().Add(-time.Hour)
				case 8:
					k.ExpiresAt, k.RevokedAt = time.Now().Add(-2*time.Hour), time.Now()
				}
			}, "stats:read")
		})
	}
	wg.Wait()
	for _, gone := range []string{"hv_key-8", "hv_key-7"} { // the one that has opened nothing for longest first
		putKey(t, s, "hv_after-"+gone[3:], nil, "stats:read")
		if _, err := s.APIKey(t.Context(), gone); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("%s: %v", gone, err)
		}
	}
	if err := s.PutAPIKey(t.Context(), "hv_too-many", store.APIKey{ID: uuid.New()}); !errors.Is(err, store.ErrTooMany) {
		t.Errorf("one too many: %v", err)
	}
	putKey(t, s, "hv_admin", nil, "*") // for which there is always room
	if list, err := s.APIKeys(t.Context()); err != nil || len(list) != 1_001 {
		t.Errorf("%d keys, %v", len(list), err)
	}
}

func TestLastUseIsShownAtOnceAndWrittenLater(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "appview.db")
	s, err := store.Open(store.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	used, unused := putKey(t, s, "hv_used", nil, "*"), putKey(t, s, "hv_unused", nil, "*")
	before, err := s.Version(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now().UTC().Truncate(time.Second)
	for i := range 1_000 {
		s.UseAPIKey(used, at.Add(time.Duration(i)*time.Second))
	}
	at = at.Add(999 * time.Second)
	if after, err := s.Version(t.Context()); err != nil || after != before {
		t.Errorf("uses were written: %v", err)
	}
	want := func(s *store.Store) {
		t.Helper()
		list, err := s.APIKeys(t.Context())
		if err != nil || len(list) != 2 {
			t.Fatalf("%+v, %v", list, err)
		}
		for _, k := range list {
			if k.ID == used && !k.LastUsedAt.Equal(at) || k.ID == unused && !k.LastUsedAt.IsZero() {
				t.Errorf("%s was last used %s", k.Name, k.LastUsedAt)
			}
		}
	}
	want(s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	want(storetest.OpenPath(t, path))
}

func TestLastUsesAreWrittenOnceAMinute(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "appview.db")
	synctest.Test(t, func(t *testing.T) {
		s, err := store.Open(store.Config{Path: path, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		id := putKey(t, s, "hv_used", nil, "*")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		version := func() uint64 {
			v, err := s.Version(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
		pass := func(d time.Duration) {
			<-time.After(d)
			synctest.Wait()
		}
		pass(30 * time.Second)
		before := version()
		for range 50 { // once a second, as a page in a browser asks
			s.UseAPIKey(id, time.Now())
			pass(time.Second)
		}
		if n := version() - before; n != 1 {
			t.Errorf("%d commits in the first minute of uses, want 1", n)
		}
		pass(2 * time.Minute)
		before = version()
		pass(10 * time.Minute)
		if n := version() - before; n != 0 {
			t.Errorf("%d commits while nothing is used", n)
		}
		cancel()
		if err := errors.Join(<-done, s.Close()); err != nil {
			t.Error(err)
		}
	})
	if k := keyOf(t, storetest.OpenPath(t, path), "hv_used"); k.LastUsedAt.IsZero() {
		t.Error("no use was written")
	}
}

func TestUsesDoNotHoldUpCloseOnAFullDisk(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	var free uint64 = 1 << 40
	s, err := store.Open(store.Config{
		Path: filepath.Join(t.TempDir(), "appview.db"), Log: slog.New(slog.NewTextHandler(io.Writer(&log), nil)),
		FreeSpace: func(string) (uint64, error) { return free, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	id := putKey(t, s, "hv_used", nil, "*")
	free = 0
	s.UseAPIKey(id, time.Now())
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if !strings.Contains(log.String(), "could not be written") {
		t.Errorf("log: %s", log.String())
	}
}
