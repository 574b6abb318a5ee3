package cmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"appview/cmd/service"
	"appview/cmd/term"
	"appview/internal/sandbox"
)

func TestClientCommands(t *testing.T) {
	t.Parallel()
	world, dir := newWorld(t), t.TempDir()
	s := serveIn(t, world, dir)
	in := func(args ...string) []string { return append(args, "--data-dir", dir) }
	status := sandbox.StatusCollection.String()

	want(t, exitOK, "no jobs: create one", nil, in("backfill", "list")...)
	want(t, exitOK, "no job is failed\n", nil, in("backfill", "list", "--status", "failed")...)
	want(t, exitOK, "no records: appview backfill list", nil, in("stats")...)
	want(t, exitOK, "no such records: appview backfill list", nil, in("records", "list", "--collection", status)...)
	watched := want(t, exitOK, "", nil, in("backfill", "create", "--collection", status, "--watch")...)
	for _, text := range []string{"completed  ", "covers     " + status, "created, 0 updated, 0 unchanged; 0 deleted, 0 rejected"} {
		if !strings.Contains(watched, text) {
			t.Errorf("%q is not in:\n%s", text, watched)
		}
	}
	listed := want(t, exitOK, "ID ", nil, in("backfill", "list", "--limit", "1", "--status", "completed")...)
	id := strings.Fields(strings.Split(listed, "\n")[1])[0]
	want(t, exitOK, "status     completed", nil, in("backfill", "show", id)...)
	want(t, exitOK, "status     completed", nil, in("backfill", "watch", id)...)
	want(t, exitError, "is completed: only a running, pausing or paused job can be cancelled", nil, in("backfill", "cancel", id)...)
	want(t, exitError, "there is no job", nil, in("backfill", "show", "7")...)
	want(t, exitError, "collection is an empty string", nil, in("backfill", "create", "--collection", "")...)
	want(t, exitError, "no valid NSID", nil, in("backfill", "create", "--collection", "x")...)

	var shown term.Job
	if err := json.Unmarshal([]byte(want(t, exitOK, id, nil, in("backfill", "show", "--json", id)...)), &shown); err != nil || shown.ID.String() != id {
		t.Errorf("--json: %v %+v", err, shown)
	}
	want(t, exitOK, status, nil, in("stats")...)
	want(t, exitOK, `"file_bytes"`, nil, in("stats", "--json")...)

	truth := world.Truth(sandbox.StatusCollection)
	exported := want(t, exitOK, "", nil, in("records", "export", "--collection", status)...)
	if n := strings.Count(exported, "\n"); n != len(truth) {
		t.Errorf("exported %d records, there are %d", n, len(truth))
	}
	page := want(t, exitOK, "there are more: --cursor ", nil, in("records", "list", "--collection", status, "--limit", "2")...)
	cursor := strings.Fields(page[strings.Index(page, "--cursor"):])[1]
	want(t, exitOK, "at://", nil, in("records", "list", "--collection", status, "--cursor", cursor)...)
	want(t, exitOK, "at://", nil, in("records", "list", "--collection", status, "--order", "rkey")...)
	for uri := range truth {
		want(t, exitOK, truth[uri].CID, nil, in("records", "get", uri)...)
		break
	}
	want(t, exitOK, "deleted 0 records", nil, in("records", "delete", "--yes", "--did", "did:web:nobody.example")...)
	want(t, exitOK, fmt.Sprintf(`"deleted": %d`, len(truth)), nil, in("records", "delete", "--yes", "--json", "--collection", status)...)
	if left := want(t, exitOK, "", nil, in("records", "export", "--collection", status)...); left != "" {
		t.Errorf("left after the deletion: %s", left)
	}
	full, errs := &fullDisk{}, newOutput()
	want(t, exitOK, "created job", nil, in("backfill", "create", "--collection", status)...)
	want(t, exitOK, "completed", nil, in("backfill", "watch")...)
	if code := run(t.Context(), in("records", "export"), nil, full, errs); code != exitError || !full.hit || strings.Count(errs.String(), errFull.Error()) != 1 {
		t.Errorf("an export to a full disk ended with %d: %s", code, errs)
	}
	want(t, exitError, "RecordNotFound: Could not locate record", nil, in("records", "get", "at://did:web:nobody.example/com.example.note/self")...)
	s.end()
}

// errFull is what writing to a fullDisk ends with.
var errFull = errors.New("no space left on device")

// fullDisk takes nothing.
type fullDisk struct{ hit bool }

func (f *fullDisk) Write([]byte) (int, error) {
	f.hit = true
	return 0, errFull
}

func TestCancelledJobFailsTheWatch(t *testing.T) {
	t.Parallel()
	world, dir := newWorld(t), t.TempDir()
	hang(world)
	s := serveIn(t, world, dir)
	made := want(t, exitOK, "created job ", nil, "backfill", "create", "--data-dir", dir)
	id := strings.Fields(made)[2]
	want(t, exitOK, "job "+id+" stops", nil, "backfill", "cancel", id, "--data-dir", dir)
	want(t, exitError, "is cancelled: cancelled by request", nil, "backfill", "watch", id, "--data-dir", dir)
	s.end()
}

func TestPausedJobGoesOnInTheNextServer(t *testing.T) {
	t.Parallel()
	world, dir := newWorld(t), t.TempDir()
	hang(world)
	s := serveIn(t, world, dir, "--collection", sandbox.StatusCollection.String())
	id := newestJob(t, dir).ID
	job := func(what string) []string { return []string{"backfill", what, id, "--data-dir", dir} }
	want(t, exitError, "is running: only a paused job can be resumed", nil, job("resume")...)
	want(t, exitOK, "job "+id+" pauses", nil, job("pause")...)
	until(t, "the job has paused", func() bool { return newestJob(t, dir).Status == "paused" })
	if listed := want(t, exitOK, "paused", nil, "backfill", "list", "--status", "paused", "--data-dir", dir); strings.Count(listed, id) != 1 {
		t.Errorf("not one paused job:\n%s", listed)
	}
	s.end()
	world.SetFault(nil)
	s = serveIn(t, world, dir, "--collection", sandbox.StatusCollection.String())
	if got := newestJob(t, dir); got.ID != id || got.Status != "paused" {
		t.Errorf("the paused job does not cover its collection: %+v", got)
	}
	want(t, exitOK, "job "+id+" goes on", nil, job("resume")...)
	want(t, exitOK, "completed", nil, job("watch")...)
	s.end()
}

func TestNoServerIsSaidClearly(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, service.KeyFile), testKey)
	no := "no server at " + filepath.Join(dir, "run", "appview.sock") + ": start one with appview serve"
	want(t, exitError, no, nil, "stats", "--data-dir", dir)
	leaveSocket(t, dir)
	want(t, exitError, no, nil, "stats", "--data-dir", dir)
	want(t, exitError, "no server at http://127.0.0.1:1: start one with appview serve", nil, "stats", "--data-dir", dir, "--url", "http://127.0.0.1:1")
	want(t, exitError, "no server at unix:/nowhere/at.all: start one with appview serve", nil, "stats", "--data-dir", dir, "--url", "unix:/nowhere/at.all")
}

func TestServerThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{}, 1)
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		<-r.Context().Done()
	}))
	defer silent.Close()
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	go func() {
		select {
		case <-asked:
			interrupt()
		case <-ctx.Done():
		}
	}()
	out := newOutput()
	if code := run(ctx, []string{"stats", "--url", silent.URL, "--key", testKey}, nil, out, out); code != exitError || !strings.Contains(out.String(), "appview: interrupted while "+silent.URL+" was asked") {
		t.Errorf("interrupted, it ended with %d: %s", code, out)
	}
	c, err := (&program{}).newClient(clientOptions{url: silent.URL, key: testKey})
	if err != nil {
		t.Fatal(err)
	}
	c.timeout = time.Millisecond
	if _, err := c.call(t.Context(), http.MethodGet, "/", nil); err == nil || !strings.Contains(err.Error(), silent.URL+" accepts connections but does not answer") {
		t.Errorf("got %v", err)
	}
}

func TestServerThatIsSomethingElse(t *testing.T) {
	t.Parallel()
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/admin/stats":
			http.Redirect(w, r, "https://example.com/", http.StatusFound)
		case "/admin/backfill/status":
			_, _ = w.Write([]byte("<html>"))
		default:
			w.Header().Set("Content-Type", "application/x-ndjson")
			_, _ = w.Write([]byte("{}\n{}\n"))
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
	}))
	defer other.Close()
	args := []string{"--url", other.URL, "--key", testKey}
	want(t, exitError, "answered 302 Found: is it appview?", nil, append([]string{"stats"}, args...)...)
	want(t, exitError, "is it appview?", nil, append([]string{"backfill", "list"}, args...)...)
	out := filepath.Join(t.TempDir(), "out")
	want(t, exitError, "the export broke off after 2 records", nil, append([]string{"records", "export", "-o", out}, args...)...)
	if left, err := filepath.Glob(out + "*"); err != nil || len(left) != 0 {
		t.Errorf("a part was left: %v %v", left, err)
	}
	want(t, exitError, "the export broke off after 2 records", nil, append([]string{"records", "export"}, args...)...)
}

func TestWhatIsSaidToBeRunNextReachesTheSameServer(t *testing.T) {
	t.Parallel()
	world, dir := newWorld(t), filepath.Join(t.TempDir(), "two words")
	s := serveIn(t, world, dir)
	quoted := " --data-dir '" + dir + "'\n"
	made := want(t, exitOK, "", nil, "backfill", "create", "--data-dir", dir)
	added := want(t, exitOK, "", nil, "collections", "add", sandbox.NoteCollection.String(), "--data-dir", dir)
	for _, said := range []string{made, added} {
		if !strings.Contains(said, "\nwatch it with: appview backfill watch ") || !strings.HasSuffix(said, quoted) {
			t.Errorf("%q does not name %s", said, quoted)
		}
	}
	// Another terminal has the same environment.
	said := want(t, exitOK, "", []string{"APPVIEW_DATA_DIR=" + dir}, "backfill", "create")
	if strings.Contains(said, "--") {
		t.Errorf("names what is known: %q", said)
	}
	key := strings.TrimSpace(read(t, filepath.Join(dir, service.KeyFile)))
	said = want(t, exitOK, "", nil, "backfill", "create", "--url", s.url, "--key", key)
	if !strings.HasSuffix(said, " --url "+s.url+"\n") || strings.Contains(said, key) {
		t.Errorf("got %q", said)
	}
	s.end()
}

func TestRecordOfAServerWithoutPublicReads(t *testing.T) {
	t.Parallel()
	world, dir := newWorld(t), t.TempDir()
	s := serveIn(t, world, dir, "--no-public-reads")
	want(t, exitError, filepath.Join(dir, "run", "appview.sock")+" was started with --no-public-reads", nil, "records", "get", "at://did:web:nobody.example/com.example.note/self", "--data-dir", dir)
	s.end()
}
