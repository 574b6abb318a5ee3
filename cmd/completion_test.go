package cmd

import (
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"appview/internal/sandbox"
)

// completes asks as a shell does, and returns what is offered, with descriptions.
func completes(t *testing.T, environ []string, args ...string) []string {
	t.Helper()
	code, out, errs := runs(t, environ, append([]string{"__complete"}, args...)...)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	last := lines[len(lines)-1]
	if code != exitOK || !strings.HasPrefix(last, ":") || strings.Contains(out+errs, "appview: ") {
		t.Errorf("%v\nended with %d, printed:\n%s%s", args, code, out, errs)
	}
	return lines[:len(lines)-1]
}

func TestCompletionAsksTheRunningServer(t *testing.T) {
	t.Parallel()
	world, dir := newWorld(t), t.TempDir()
	s := serveIn(t, world, dir)
	status, note := sandbox.StatusCollection.String(), sandbox.NoteCollection.String()
	want(t, exitOK, "completed", nil, "backfill", "create", "--collection", status, "--watch", "--data-dir", dir)
	job := newestJob(t, dir).ID
	hang(world)
	want(t, exitOK, "is tracked", nil, "collections", "add", note, "--data-dir", dir)
	running := newestJob(t, dir).ID
	want(t, exitOK, "denied", nil, "denylist", "add", "pds.example.com", "--reason", "asked\tfor", "--yes", "--data-dir", dir)
	want(t, exitOK, "hv_", nil, "keys", "create", "the site", "--permission", "stats:read", "--data-dir", dir)

	in := func(args ...string) []string {
		return completes(t, nil, append([]string{args[0], args[1], "--data-dir", dir}, args[2:]...)...)
	}
	for _, c := range []struct {
		args []string
		want []string // beginnings of what is offered
	}{
		{[]string{"backfill", "show", ""}, []string{running + "\t", job + "\tcompleted, " + status}},
		{[]string{"backfill", "watch", job[:5]}, []string{job + "\t"}},
		{[]string{"backfill", "cancel", ""}, []string{running + "\t"}},
		{[]string{"backfill", "retry", ""}, []string{job + "\tcompleted"}},
		{[]string{"backfill", "show", job, ""}, nil},
		{[]string{"backfill", "list", "--status", ""}, []string{"completed\t1 jobs", "running\t1 jobs"}},
		{[]string{"backfill", "repos", job, "--state", ""}, []string{"pending", "done", "empty", "unavailable", "failed"}},
		{[]string{"backfill", "create", "--collection", ""}, []string{note + "\t0 records, tracked", status + "\t"}},
		{[]string{"backfill", "plan", "--collection", "xyz"}, []string{status + "\t"}},
		{[]string{"records", "list", "--collection", ""}, []string{status + "\t"}},
		{[]string{"records", "list", "--order", ""}, []string{"indexed", "rkey"}},
		{[]string{"records", "list", ""}, nil},
		{[]string{"collections", "remove", ""}, []string{note + "\t"}},
		{[]string{"collections", "remove", note, "--records", ""}, []string{"keep", "delete"}},
		{[]string{"denylist", "remove", ""}, []string{"pds.example.com\tasked for"}},
		{[]string{"keys", "create", "x", "--permission", "stats:read,rec"}, []string{"stats:read,records:delete", "stats:read,records:read"}},
		{[]string{"keys", "revoke", ""}, []string{"", ""}},
	} {
		got := in(c.args...)
		if len(got) != len(c.want) {
			t.Errorf("%v: offered %q", c.args, got)
			continue
		}
		for i := range got {
			if !strings.HasPrefix(got[i], c.want[i]) {
				t.Errorf("%v: offered %q, want %q", c.args, got[i], c.want[i])
			}
		}
	}
	// The variables count as they do when the command is run.
	if got := completes(t, []string{"APPVIEW_DATA_DIR=" + dir, "APPVIEW_ACTIVE_HELP=0"}, "backfill", "watch", ""); len(got) != 2 {
		t.Errorf("offered %q", got)
	}
	s.end()
}

func TestCompletionIsSilentAndShortWhereThereIsNoServer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, keyFile), testKey)
	leaveSocket(t, dir)
	for name, args := range map[string][]string{
		"nothing there": {"--data-dir", t.TempDir()},
		"died":          {"--data-dir", dir},
		"no URL":        {"--url", "nowhere"},
		"no key":        {"--url", "https://appview.example.com"},
	} {
		for _, command := range [][]string{{"backfill", "watch"}, {"backfill", "create", "--collection"}, {"keys", "revoke"}, {"denylist", "remove"}, {"backfill", "list", "--status"}} {
			line := append(append([]string{command[0], command[1]}, args...), append(command[2:], "")...)
			if got := completes(t, nil, line...); len(got) != 0 {
				t.Errorf("%s: offered %q", name, got)
			}
		}
	}

	refused := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, `{"error":"the key was revoked"}`, http.StatusUnauthorized)
	}))
	defer refused.Close()
	if got := completes(t, nil, "backfill", "watch", "--url", refused.URL, "--key", testKey, ""); len(got) != 0 {
		t.Errorf("offered %q", got)
	}

	silent, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0") // it accepts, and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	began := time.Now()
	if got := completes(t, nil, "backfill", "watch", "--url", "http://"+silent.Addr().String(), "--key", testKey, ""); len(got) != 0 {
		t.Errorf("offered %q", got)
	}
	if took := time.Since(began); took < completionTime || took > completionTime+patience {
		t.Errorf("a server that hangs was waited for for %s", took)
	}
}

func TestEveryShellHasItsScript(t *testing.T) {
	t.Parallel()
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		want(t, exitOK, "__complete", nil, "completion", shell)
	}
}
