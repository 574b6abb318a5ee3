package server

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/server/answer"
	"appview/store"
	"appview/store/index"
	"appview/store/storetest"
)

func TestBackupIsADatabase(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	r := newRig(t)
	r.bulk()
	a := r.get("/admin/backup")
	if a.status != http.StatusOK || a.header.Get("Content-Length") != strconv.Itoa(len(a.body)) || a.header.Get("Content-Type") != "application/octet-stream" {
		t.Fatalf("%d with %d bytes: %v", a.status, len(a.body), a.header)
	}
	path := filepath.Join(t.TempDir(), "backup.db")
	r.check(os.WriteFile(path, []byte(a.body), 0o600))
	storetest.Check(t, path)
	st, err := store.Open(store.Config{Path: path})
	r.check(err)
	defer func() { r.check(st.Close()) }()
	n := 0
	r.check(st.Index.Export(t.Context(), index.Filter{}, func(uint64) error { return nil }, func(*index.Record) error { n++; return nil }))
	if n != 40 {
		t.Errorf("the backup has %d records", n)
	}
	head := r.do(http.MethodHead, "/admin/backup", "")
	if head.status != http.StatusOK || head.body != "" || head.header.Get("Content-Length") == "" {
		t.Errorf("HEAD: %d %v", head.status, head.header)
	}
	r.do(http.MethodGet, "/admin/backup?collection=a.b.c", "").want(t, 400, `unknown parameter "collection"`)
	// One backup was made; a head and a mistake are none.
	if events := r.audit("").Events; len(events) != 1 || events[0].Action != "backup" || events[0].Outcome != "done" {
		t.Errorf("noted: %+v", events)
	}
}

// left waits until the server has given up all backups.
func (r *rig) left() {
	r.t.Helper()
	for range answer.MaxBackups {
		select {
		case r.server.out.Bounds.Backups <- struct{}{}:
		case <-time.After(10 * time.Second):
			r.t.Fatal("a backup still runs")
		}
	}
	for range answer.MaxBackups {
		<-r.server.out.Bounds.Backups
	}
}

func TestBackupForAClientThatStallsIsCutOff(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.server.out.Bounds.Pace = answer.Pace{Write: 300 * time.Millisecond, Window: time.Hour, Rate: 1}
	r.bulk()
	conn, res := r.openAt("/admin/backup")
	defer func() { _ = res.Body.Close() }()
	r.get("/admin/backup").want(t, 429, "backups as may run at once (1) run already")
	r.left()
	r.check(conn.SetReadDeadline(time.Now().Add(10 * time.Second)))
	r.check(conn.(*net.TCPConn).SetReadBuffer(4 << 20)) //nolint:errcheck,forcetypeassert // it was dialled as tcp
	data, err := io.ReadAll(res.Body)
	if !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, syscall.ECONNRESET) || len(data) == 0 {
		t.Errorf("after %d bytes the backup ended with %v", len(data), err)
	}
	if log := r.logs.String(); !strings.Contains(log, "the client takes the answer too slowly") {
		t.Errorf("log: %s", log)
	}
	if events := r.audit("").Events; len(events) != 1 || events[0].Action != "backup" || events[0].Outcome != "failed" {
		t.Errorf("noted: %+v", events)
	}
	r.server.out.Bounds.Pace = answer.Pace{Write: time.Minute, Window: time.Hour, Rate: 1} // a busy machine may wait longer for us
	// Its pages are free again.
	r.settle(bob, index.AccountActive, map[syntax.NSID][]index.Listed{note: {text(t, "k", "k")}})
	if a := r.get("/admin/backup"); a.status != http.StatusOK {
		t.Errorf("the next backup: %d %s", a.status, a.body)
	}
}
