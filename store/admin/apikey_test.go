package admin_test

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"appview/store/admin"
	"appview/store/kv"
)

// putKey stores a key with permissions and returns its id.
func putKey(tb testing.TB, s file, secret string, change func(*admin.APIKey), permissions ...string) uuid.UUID {
	tb.Helper()
	k := admin.APIKey{ID: uuid.New(), Name: secret[3:], Prefix: secret[:5], Permissions: permissions, CreatedAt: time.Now()}
	if change != nil {
		change(&k)
	}
	if err := s.PutAPIKey(asAdmin(tb), secret, k); err != nil {
		tb.Fatal(err)
	}
	return k.ID
}

func keyOf(tb testing.TB, s file, secret string) admin.APIKey {
	tb.Helper()
	k, err := s.APIKey(tb.Context(), secret)
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

func TestRevokedKeyStaysRevoked(t *testing.T) {
	t.Parallel()
	s := open(t, kv.Config{Path: newPath(t)})
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
	if err := s.PutAPIKey(asAdmin(t), "hv_reader", admin.APIKey{ID: uuid.New(), Permissions: []string{"*"}}); !errors.Is(err, kv.ErrExists) {
		t.Errorf("a revoked key is made anew: %v", err)
	}
	if again := keyOf(t, s, "hv_reader"); !again.RevokedAt.Equal(first.RevokedAt) || again.ID != id {
		t.Errorf("revoked again: %+v", again)
	}
	if err := s.RevokeAPIKey(asAdmin(t), uuid.New(), false); !errors.Is(err, kv.ErrNotFound) {
		t.Errorf("revoke nothing: %v", err)
	}
	wantAudit(t, s, "key:create "+id.String()+" (reader (hv_re…): stats:read) done", "key:revoke "+id.String()+" (reader (hv_re…): stats:read) done")
}

func TestLastAdminKeyIsNotRevokedUnknowingly(t *testing.T) {
	t.Parallel()
	s := open(t, kv.Config{Path: newPath(t)})
	putKey(t, s, "hv_reader", nil, "stats:read", "keys:manage")
	putKey(t, s, "hv_expired", func(k *admin.APIKey) { k.ExpiresAt = time.Now().Add(-time.Minute) }, "*")
	first := putKey(t, s, "hv_first", nil, "*")
	if err := s.RevokeAPIKey(t.Context(), first, false); !errors.Is(err, admin.ErrLastAdmin) {
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
	if (errs[0] == nil) == (errs[1] == nil) || !errors.Is(errors.Join(errs...), admin.ErrLastAdmin) {
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
	s := open(t, kv.Config{Path: newPath(t)})
	var wg sync.WaitGroup
	for i := range 1_000 {
		wg.Go(func() {
			putKey(t, s, fmt.Sprintf("hv_key-%d", i), func(k *admin.APIKey) {
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
		if _, err := s.APIKey(t.Context(), gone); !errors.Is(err, kv.ErrNotFound) {
			t.Errorf("%s: %v", gone, err)
		}
	}
	if err := s.PutAPIKey(t.Context(), "hv_too-many", admin.APIKey{ID: uuid.New()}); !errors.Is(err, kv.ErrTooMany) {
		t.Errorf("one too many: %v", err)
	}
	putKey(t, s, "hv_admin", nil, "*") // for which there is always room
	if list, err := s.APIKeys(t.Context()); err != nil || len(list) != 1_001 {
		t.Errorf("%d keys, %v", len(list), err)
	}
}

func TestLastUseIsShownAtOnceAndWrittenLater(t *testing.T) {
	t.Parallel()
	path := newPath(t)
	s := openFile(t, kv.Config{Path: path})
	used, unused := putKey(t, s, "hv_used", nil, "*"), putKey(t, s, "hv_unused", nil, "*")
	version := func() int {
		n, err := kv.Read(t.Context(), s.db, func(tx *kv.Tx) (int, error) { return tx.ID(), nil })
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := version()
	at := time.Now().UTC().Truncate(time.Second)
	for i := range 1_000 {
		s.UseAPIKey(used, at.Add(time.Duration(i)*time.Second))
	}
	at = at.Add(999 * time.Second)
	if version() != before {
		t.Error("uses were written")
	}
	want := func(s file) {
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
	s.close(t)
	want(open(t, kv.Config{Path: path}))
}

func TestUsesDoNotHoldUpCloseOnAFullDisk(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	var free uint64 = 1 << 40
	s := openFile(t, kv.Config{
		Path: newPath(t), Log: slog.New(slog.NewTextHandler(io.Writer(&log), nil)),
		FreeSpace: func(string) (uint64, error) { return free, nil },
	})
	id := putKey(t, s, "hv_used", nil, "*")
	free = 0
	s.UseAPIKey(id, time.Now())
	s.close(t)
	if !strings.Contains(log.String(), "could not be written") {
		t.Errorf("log: %s", log.String())
	}
}
