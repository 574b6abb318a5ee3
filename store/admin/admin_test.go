package admin_test

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"appview/internal/api"
	"appview/store/admin"
	"appview/store/kv"
)

// file is an open file that holds nothing but what is for administrators.
type file struct {
	*admin.Admin

	db *kv.DB
}

func schema() kv.Schema { return kv.Join(3, admin.Part()) }

// newPath is where a test makes its file.
func newPath(tb testing.TB) string {
	tb.Helper()
	return filepath.Join(tb.TempDir(), "appview.db")
}

// openFile opens a file, with groups that do not wait long for company.
func openFile(tb testing.TB, cfg kv.Config) file {
	tb.Helper()
	if cfg.FlushEvery == 0 {
		cfg.FlushEvery = 5 * time.Millisecond
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	db, err := kv.Open(cfg, schema())
	if err != nil {
		tb.Fatal(err)
	}
	return file{admin.New(db), db}
}

func (f file) close(tb testing.TB) {
	tb.Helper()
	if err := f.db.Close(f.FlushUses()...); err != nil {
		tb.Errorf("close: %v", err)
	}
}

// open is openFile for a file that is checked and closed when the test ends.
func open(tb testing.TB, cfg kv.Config) file {
	tb.Helper()
	f := openFile(tb, cfg)
	tb.Cleanup(func() {
		if err := f.db.Check(context.Background()); err != nil {
			tb.Errorf("check: %v", err)
		}
		f.close(tb)
	})
	return f
}

// prune has everything deleted that is kept no longer.
func (f file) prune(tb testing.TB) {
	tb.Helper()
	for done := false; !done; {
		var err error
		done, err = f.db.Prune(tb.Context())
		if err != nil {
			tb.Fatal(err)
		}
	}
}

var actor = admin.Actor{Kind: api.ActorKey, KeyID: uuid.MustParse("00000000-0000-4000-8000-000000000001"), Prefix: "hv_abcde", Name: "admin"}

// asAdmin is a context in which an administrator acts.
func asAdmin(tb testing.TB) context.Context {
	tb.Helper()
	return admin.WithActor(tb.Context(), actor)
}

func wantAudit(tb testing.TB, f file, want ...string) {
	tb.Helper()
	list, next, err := f.Events(tb.Context(), 0, 10_000)
	if err != nil || next != 0 {
		tb.Fatalf("events: next %d, %v", next, err)
	}
	var lines []string
	for _, e := range list {
		if e.At.IsZero() || e.Actor != actor {
			tb.Errorf("event %+v has no time, or is of somebody else", e)
		}
		lines = append([]string{fmt.Sprintf("%s %s (%s) %s", e.Action, e.Target, e.Detail, e.Outcome)}, lines...)
	}
	if strings.Join(lines, "\n") != strings.Join(want, "\n") {
		tb.Errorf("the audit log is\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
}
