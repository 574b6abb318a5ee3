package cmd

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"appview/cmd/service"
	"appview/internal/sandbox"
)

func TestOneCommandIsTheMainJob(t *testing.T) {
	t.Parallel()
	world, dir := newWorld(t), filepath.Join(t.TempDir(), "data")
	status := sandbox.StatusCollection.String()
	s := serveIn(t, world, dir, "--collection", status)
	s.log.wait(t, `msg="job ended"`)

	// The client commands find the server and its key by themselves.
	listed := want(t, exitOK, "completed", nil, "backfill", "list", "--data-dir", dir)
	if strings.Count(listed, status) != 1 {
		t.Errorf("not one job:\n%s", listed)
	}
	out := filepath.Join(t.TempDir(), "export.ndjson")
	want(t, exitOK, "records to "+out, nil, "records", "export", "--collection", status, "--data-dir", dir, "-o", out)
	if got, truth := strings.Count(read(t, out), "\n"), len(world.Truth(sandbox.StatusCollection)); got != truth {
		t.Errorf("exported %d records, there are %d", got, truth)
	}
	want(t, exitLocked, "stop it, or choose another --data-dir", nil, "check", "--data-dir", dir)
	if code := s.end(); code != exitOK {
		t.Errorf("ended with %d:\n%s", code, s.log)
	}
	if _, err := os.Stat(filepath.Join(dir, service.URLFile)); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", service.URLFile, err)
	}
	want(t, exitOK, "is consistent", nil, "check", "--data-dir", dir)

	// The next start finds the collection covered.
	s = serveIn(t, world, dir, "--collection", status+","+sandbox.NoteCollection.String())
	s.log.wait(t, `msg="job ended"`)
	listed = want(t, exitOK, "completed", nil, "backfill", "list", "--data-dir", dir)
	if strings.Count(listed, status) != 1 || strings.Count(listed, sandbox.NoteCollection.String()) != 1 {
		t.Errorf("not one job each:\n%s", listed)
	}
	if code := s.end(); code != exitOK {
		t.Errorf("ended with %d:\n%s", code, s.log)
	}
}

func TestSecondServerOnTheSameDataExitsWithThree(t *testing.T) {
	t.Parallel()
	world, dir := newWorld(t), t.TempDir()
	s := serveIn(t, world, dir)
	c := startChild(t, nil, "serve", "--data-dir", dir, "--listen", "127.0.0.1:0")
	if code := c.wait(); code != exitLocked || !strings.Contains(c.log.String(), "another appview process has the database open") {
		t.Errorf("ended with %d: %s", code, c.log)
	}
	if n := strings.Count(c.log.String(), "\n"); n != 1 {
		t.Errorf("%d lines: %s", n, c.log)
	}
	want(t, exitOK, "no jobs", nil, "backfill", "list", "--data-dir", dir) // the first one goes on
	s.end()
}

func TestPortInUseIsOneClearLine(t *testing.T) {
	t.Parallel()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	dir := t.TempDir()
	c := startChild(t, nil, "serve", "--data-dir", dir, "--listen", l.Addr().String())
	if code := c.wait(); code != exitError || !strings.Contains(c.log.String(), "the port is in use") || strings.Count(c.log.String(), "\n") != 1 {
		t.Errorf("ended with %d: %s", code, c.log)
	}
	if _, err := os.Stat(filepath.Join(dir, service.URLFile)); !os.IsNotExist(err) {
		t.Errorf("%s was left: %v", service.URLFile, err)
	}
}

func TestDataDirectoryThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	write(t, file, "x")
	want(t, exitError, "data directory:", nil, "serve", "--data-dir", file, "--listen", "127.0.0.1:0")
	want(t, exitError, "name one that can be written with --data-dir", nil, "serve", "--data-dir", filepath.Join(file, "below"), "--listen", "127.0.0.1:0")
}

func TestDatabaseThatCannotBeReadExitsWithFour(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, service.DatabaseFile), strings.Repeat("this is no database. ", 10_000))
	want(t, exitDamaged, "restore a backup", nil, "serve", "--data-dir", dir, "--listen", "127.0.0.1:0")
	want(t, exitDamaged, "restore a backup", nil, "check", "--data-dir", dir)
}

func TestConfiguredKeyIsNotWritten(t *testing.T) {
	t.Parallel()
	world, dir := newWorld(t), t.TempDir()
	c := startChild(t, []string{"APPVIEW_ADMIN_KEY=" + testKey, "APPVIEW_LISTEN=127.0.0.1:0", "APPVIEW_DATA_DIR=" + dir},
		"serve", "--relay", world.RelayURL(), "--plc", world.PLCURL(), "--allow-private-hosts")
	c.log.wait(t, "msg=serving")
	if !strings.Contains(c.log.String(), "private and loopback hosts are allowed") {
		t.Errorf("no warning: %s", c.log)
	}
	want(t, exitOK, "no jobs", []string{"APPVIEW_ADMIN_KEY=" + testKey}, "backfill", "list", "--data-dir", dir)
	want(t, exitOK, "no jobs", []string{"APPVIEW_KEY=" + testKey, "APPVIEW_DATA_DIR=" + dir}, "backfill", "list")
	want(t, exitError, "no key: there is no", nil, "backfill", "list", "--data-dir", dir)
	want(t, exitError, "the key is not known here (the key came from --key)", nil, "backfill", "list", "--data-dir", dir, "--key", "hv_another-key-than-the-one")
	if _, err := os.Stat(filepath.Join(dir, service.KeyFile)); !os.IsNotExist(err) {
		t.Errorf("a key was written: %v", err)
	}
	if err := c.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	c.wait()
}

// hang keeps every answer of PDS hosts back until the server is stopped.
func hang(world *sandbox.World) {
	world.SetFault(func(r sandbox.Request) sandbox.Fault {
		return sandbox.Fault{Hang: r.Part == sandbox.PartPDS}
	})
}

func TestSignalInTheMiddleOfAJobIsACleanEnd(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("no SIGTERM")
	}
	world, dir := newWorld(t), t.TempDir()
	hang(world)
	args := []string{
		"serve", "--data-dir", dir, "--listen", "127.0.0.1:0", "--relay", world.RelayURL(), "--plc", world.PLCURL(),
		"--allow-private-hosts", "--host-rps", "10000", "--collection", sandbox.StatusCollection.String(),
	}
	c := startChild(t, nil, args...)
	c.log.wait(t, "msg=serving")
	until(t, "a host is being read", func() bool { return world.Faults("") > 0 })
	began := time.Now()
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := c.wait(); code != exitOK || time.Since(began) > 5*time.Second {
		t.Errorf("ended with %d after %s: %s", code, time.Since(began), c.log)
	}
	world.SetFault(nil)
	s := serveIn(t, world, dir)
	s.log.wait(t, `msg="job ended"`)
	listed := want(t, exitOK, "completed", nil, "backfill", "list", "--data-dir", dir)
	if strings.Contains(listed, "failed") || strings.Count(listed, "completed") != 1 {
		t.Errorf("the job did not go on:\n%s", listed)
	}
	s.end()
}

// until waits for something that gives no sign of its own.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	late := time.After(patience)
	for !is() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("never: %s", what)
		}
	}
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("no SIGINT")
	}
	world, dir := newWorld(t), t.TempDir()
	c := startChild(t, nil, "serve", "--data-dir", dir, "--listen", "127.0.0.1:0", "--relay", world.RelayURL(), "--plc", world.PLCURL(), "--allow-private-hosts")
	c.log.wait(t, "msg=serving")
	begin(t, dir) // a request that does not end holds the shutdown up
	if err := c.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	c.log.wait(t, "msg=stopping")
	if err := c.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if code := c.wait(); code != exitSignal {
		t.Errorf("ended with %d: %s", code, c.log)
	}
}

func TestTimesAreUTCWhereverTheServerIs(t *testing.T) {
	t.Parallel()
	world, dir := newWorld(t), t.TempDir()
	c := startChild(t, []string{"TZ=Pacific/Kiritimati"}, "serve", "--data-dir", dir, "--listen", "127.0.0.1:0",
		"--relay", world.RelayURL(), "--plc", world.PLCURL(), "--allow-private-hosts", "--collection", sandbox.StatusCollection.String())
	c.log.wait(t, `msg="job ended"`)
	var jobs []map[string]any
	if err := json.Unmarshal(ask(t, dir, "/admin/backfill/status"), &jobs); err != nil || len(jobs) != 1 {
		t.Fatalf("jobs: %v, %v", jobs, err)
	}
	for _, name := range []string{"created_at", "started_at", "completed_at"} {
		text, _ := jobs[0][name].(string)
		at, err := time.Parse("2006-01-02T15:04:05Z", text)
		if err != nil || time.Since(at).Abs() > time.Minute {
			t.Errorf("%s is %q: %v", name, text, err)
		}
	}
	if err := c.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	c.wait()
}
