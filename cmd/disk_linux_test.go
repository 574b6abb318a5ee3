package cmd

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"appview/cmd/service"
	"appview/internal/sandbox"
	"appview/store/storetest"
)

// volume mounts a file system that can hold little more than what a server leaves
// free. It takes no more memory than what is written to it.
func volume(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("appview-test", dir, "tmpfs", 0, "size=288m"); err != nil {
		t.Skipf("a small file system cannot be mounted here, which takes root: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

// notReady is why a server is not ready, empty if it is.
func notReady(t *testing.T, dir string) string {
	t.Helper()
	client, err := (&program{}).newClient(clientOptions{dataDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.call(t.Context(), http.MethodGet, "/ready", nil)
	var answer answerError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &answer) && answer.status == http.StatusServiceUnavailable:
		return answer.text
	default:
		t.Fatal(err)
		return ""
	}
}

func TestFirstStartOnAFullDiskSaysWhatToDo(t *testing.T) {
	t.Parallel()
	dir := volume(t)
	if err := os.WriteFile(filepath.Join(dir, "other"), make([]byte, 64<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	want(t, exitError, "less than 256 MiB is free at "+filepath.Join(dir, service.DatabaseFile)+": make room there, or choose another --data-dir",
		nil, "serve", "--listen=127.0.0.1:0", "--data-dir="+dir)
}

func TestFullDiskIsWaitedFor(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	world, dir := newWorld(t), volume(t)
	gate := make(chan struct{}) // hosts answer when it is closed
	release := sync.OnceFunc(func() { close(gate) })
	t.Cleanup(release)
	world.SetFault(func(r sandbox.Request) sandbox.Fault {
		if r.Part == sandbox.PartPDS {
			<-gate
		}
		return sandbox.Fault{}
	})
	args := []string{
		"serve", "--data-dir", dir, "--listen", "127.0.0.1:0", "--relay", world.RelayURL(), "--plc", world.PLCURL(), "--allow-private-hosts",
		"--collection", sandbox.StatusCollection.String(),
	}
	c := startChild(t, nil, args...)
	c.log.wait(t, "msg=serving")
	job := newestJob(t, dir)
	weight := filepath.Join(dir, "ballast")
	write(t, weight, strings.Repeat("x", 40<<20))
	in := func(args ...string) []string { return append(args, "--data-dir", dir) }
	want(t, exitError, "disk is full", nil, in("backfill", "create")...) // which notices it
	if why := notReady(t, dir); !strings.Contains(why, "the disk is full") {
		t.Errorf("not ready: %q", why)
	}
	release()
	want(t, exitOK, `"waiting": "disk"`, nil, in("backfill", "show", job.ID, "--json")...)
	want(t, exitOK, "waits for", nil, in("backfill", "show", job.ID)...) // reads go on
	if err := os.Remove(weight); err != nil {
		t.Fatal(err)
	}
	want(t, exitOK, "completed", nil, in("backfill", "watch", job.ID)...)
	if why := notReady(t, dir); why != "" {
		t.Errorf("after there is room: %s", why)
	}
	if err := c.cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := c.wait(); code != exitOK {
		t.Errorf("ended with %d: %s", code, c.log)
	}
	want(t, exitOK, "is consistent", nil, in("check")...)
}
