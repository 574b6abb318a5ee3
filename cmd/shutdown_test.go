package cmd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"appview/cmd/service"
	"appview/internal/sandbox"
	"appview/internal/sandbox/sandboxtest"
	"appview/store/storetest"
)

// ending is how long a server may take to end: five seconds are promised, and this
// machine may have more to do.
const ending = 10 * time.Second

// sandboxed are the arguments of a server over a world.
func sandboxed(world *sandbox.World, dir string, args ...string) []string {
	return append([]string{
		"serve", "--data-dir", dir, "--listen", "127.0.0.1:0", "--relay", world.RelayURL(), "--plc", world.PLCURL(),
		"--allow-private-hosts", "--host-rps", "10000", "--plc-rps", "10000",
	}, args...)
}

// terminate asks the process to end and wants it to do so in time.
func (c *child) terminate(code int) {
	c.t.Helper()
	began := time.Now()
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		c.t.Fatal(err)
	}
	if got := c.wait(); got != code || time.Since(began) > ending {
		c.t.Errorf("ended with %d after %s, want %d:\n%s", got, time.Since(began), code, c.log)
	}
}

// begin sends the head of a request to create a job, and waits until the handler
// wants its body.
func begin(t *testing.T, dir string) net.Conn {
	t.Helper()
	addr := strings.TrimPrefix(strings.TrimSpace(read(t, filepath.Join(dir, service.URLFile))), "http://")
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	key := strings.TrimSpace(read(t, filepath.Join(dir, service.KeyFile)))
	if _, err := fmt.Fprintf(conn, "POST /admin/backfill HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n", key); err != nil {
		t.Fatal(err)
	}
	const proceed = "HTTP/1.1 100 Continue\r\n\r\n"
	if got, err := io.ReadAll(io.LimitReader(conn, int64(len(proceed)))); err != nil || string(got) != proceed {
		t.Fatalf("got %q, %v", got, err)
	}
	return conn
}

func noSignals(t *testing.T) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("no SIGTERM")
	}
}

func TestRequestUnderWayIsAnsweredAtAShutdown(t *testing.T) {
	t.Parallel()
	noSignals(t)
	world, dir := newWorld(t), t.TempDir()
	c := startChild(t, nil, sandboxed(world, dir)...)
	c.log.wait(t, "msg=serving")
	conn := begin(t, dir)
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	c.log.wait(t, "msg=stopping")
	if _, err := conn.Write([]byte("{}")); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusCreated {
		t.Errorf("answered with %d", res.StatusCode)
	}
	if code := c.wait(); code != exitOK {
		t.Errorf("ended with %d: %s", code, c.log)
	}
	s := serveIn(t, world, dir)
	want(t, exitOK, "completed", nil, "backfill", "watch", strings.TrimPrefix(res.Header.Get("Location"), "/admin/backfill/"), "--data-dir", dir)
	s.end()
}

// TestClientsThatTakeNothingDoNotHoldUpAShutdown leaves an export and a backup
// unread.
func TestClientsThatTakeNothingDoNotHoldUpAShutdown(t *testing.T) {
	t.Parallel()
	noSignals(t)
	world := sandboxtest.Start(t, sandbox.Config{
		Seed: 72, Repos: 60, Hosts: 2,
		Collections: []sandbox.Collection{{NSID: sandbox.StatusCollection, Share: 1, MinRecords: 400, MaxRecords: 400}},
	})
	dir := filled(t, world)
	c := startChild(t, nil, sandboxed(world, dir)...)
	c.log.wait(t, "msg=serving")
	addr := strings.TrimPrefix(strings.TrimSpace(read(t, filepath.Join(dir, service.URLFile))), "http://")
	key := strings.TrimSpace(read(t, filepath.Join(dir, service.KeyFile)))
	for _, path := range []string{"/admin/records/export", "/admin/backup"} {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		if err := conn.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil { //nolint:errcheck,forcetypeassert // it was dialled as tcp
			t.Fatal(err)
		}
		if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", path, key); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	c.terminate(exitOK)
	if !strings.Contains(c.log.String(), "requests did not end in time and are cut") {
		t.Errorf("no request was under way:\n%s", c.log)
	}
	want(t, exitOK, "is consistent", nil, "check", "--data-dir", dir)
}

func TestPastTheDeadlineTheProcessEndsAllTheSame(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	noSignals(t)
	world := newWorld(t)
	dir := filled(t, world)
	file := filepath.Join(t.TempDir(), "stall")
	c := startChild(t, []string{stall + "=" + file}, sandboxed(world, dir)...)
	c.log.wait(t, "msg=serving")
	write(t, file, "")
	conn := begin(t, dir)
	if _, err := conn.Write([]byte("{}")); err != nil { // its commit does not end
		t.Fatal(err)
	}
	until(t, "a commit stalls", func() bool { _, err := os.Stat(file + ".stalled"); return err == nil })
	c.terminate(exitError)
	if !strings.Contains(c.log.String(), "not everything stopped within") {
		t.Errorf("the log does not say why:\n%s", c.log)
	}
	want(t, exitOK, "is consistent", nil, "check", "--data-dir", dir)
	s := serveIn(t, world, dir)
	if got := exported(t, dir); !maps.Equal(got, truthOf(world)) {
		t.Errorf("%d records served, the world has %d, or some differ", len(got), len(truthOf(world)))
	}
	s.end()
}

// TestShutdownsInTheMiddleLoseNothing asks the server to end again and again in one
// job. What was read is committed: only what was under way is read again.
func TestShutdownsInTheMiddleLoseNothing(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	noSignals(t)
	const hosts, perHost = 6, 4
	world := sandboxtest.Start(t, sandbox.Config{
		Seed: 73, Repos: 1200, Hosts: hosts,
		Collections: []sandbox.Collection{{NSID: sandbox.StatusCollection, Share: 1, MinRecords: 1, MaxRecords: 3}},
	})
	args := sandboxed(world, t.TempDir(), "--collection", sandbox.StatusCollection.String(), "--repos-per-host", fmt.Sprint(perHost))
	dir := args[2]
	rng := rand.New(rand.NewPCG(73, 73))
	shutdowns := 0
	for range 6 {
		c := startChild(t, nil, args...)
		c.log.wait(t, "msg=serving")
		moment := time.Duration(rng.IntN(150)) * time.Millisecond
		if ended := c.log.has(`msg="job ended"`, moment); ended {
			c.terminate(exitOK)
			break
		}
		c.terminate(exitOK)
		shutdowns++
		want(t, exitOK, "is consistent", nil, "check", "--data-dir", dir)
		if _, err := os.Stat(filepath.Join(dir, service.URLFile)); !os.IsNotExist(err) {
			t.Errorf("%s is still there: %v", service.URLFile, err)
		}
	}
	if shutdowns < 2 {
		t.Errorf("only %d shutdowns came in the middle of the job", shutdowns)
	}
	s := serveIn(t, world, dir, "--collection", sandbox.StatusCollection.String())
	want(t, exitOK, "completed", nil, "backfill", "watch", newestJob(t, dir).ID, "--data-dir", dir)
	if got := exported(t, dir); !maps.Equal(got, truthOf(world)) {
		t.Errorf("%d records served, the world has %d, or some differ", len(got), len(truthOf(world)))
	}
	s.end()
	reads := map[string]int{}
	for _, q := range world.Requests(func(q sandbox.Request) bool { return q.Method == listRecords && q.Cursor == "" }) {
		reads[q.DID]++
	}
	again := 0
	for _, n := range reads {
		again += n - 1
	}
	if most := shutdowns * hosts * perHost; again > most {
		t.Errorf("%d repos were read again after %d shutdowns, at most %d were under way", again, shutdowns, most)
	}
}

// has waits for a text no longer than d, and reports whether it came.
func (o *output) has(text string, d time.Duration) bool {
	late := time.After(d)
	for !strings.Contains(o.String(), text) {
		select {
		case <-o.hit:
		case <-late:
			return false
		}
	}
	return true
}

// piped starts the program with an output that goes to a pipe, and returns the pipe's
// other end.
func piped(t *testing.T, environ []string, args ...string) (*exec.Cmd, *os.File) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	read, written, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = read.Close(), written.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, exe, args...)
	cmd.Env = append([]string{reexec + "=1"}, environ...)
	cmd.Stdout, cmd.Stderr = written, written
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := written.Close(); err != nil {
		t.Fatal(err)
	}
	return cmd, read
}

// readUntil reads lines up to one that holds the text, and closes the pipe.
func readUntil(t *testing.T, pipe *os.File, text string) {
	t.Helper()
	lines := bufio.NewScanner(pipe)
	for lines.Scan() {
		if strings.Contains(lines.Text(), text) {
			if err := pipe.Close(); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatalf("%q was never printed: %v", text, lines.Err())
}

func TestDemoWhoseReaderGoesLeavesNothing(t *testing.T) {
	t.Parallel()
	noSignals(t)
	tmp := t.TempDir()
	cmd, pipe := piped(t, []string{"TMPDIR=" + tmp}, "demo", "--repos", "40", "--hosts", "3", "--listen", "127.0.0.1:0")
	readUntil(t, pipe, "inventing 40 repos")
	if err := cmd.Wait(); err != nil {
		t.Errorf("ended with %v", err)
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

// wantAtWork wants a server to do a job, and to end as it should.
func wantAtWork(t *testing.T, cmd *exec.Cmd, dir string) {
	t.Helper()
	want(t, exitOK, "created job", nil, "backfill", "create", "--data-dir", dir)
	want(t, exitOK, "completed", nil, "backfill", "watch", "--data-dir", dir)
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("ended with %v", err)
	}
}

// TestDemoOutlivesItsClients has it get the signal that the system sends for a write to
// any client that has gone.
func TestDemoOutlivesItsClients(t *testing.T) {
	t.Parallel()
	noSignals(t)
	dir := t.TempDir()
	cmd, pipe := piped(t, nil, "demo", "--repos", "40", "--hosts", "3", "--listen", "127.0.0.1:0", "--data-dir", dir)
	lines, up := bufio.NewScanner(pipe), false
	for !up && lines.Scan() {
		up = strings.Contains(lines.Text(), "Ctrl-C ends it")
	}
	go func() { _, _ = io.Copy(io.Discard, pipe) }() // until the test closes it
	if err := cmd.Process.Signal(syscall.SIGPIPE); err != nil {
		t.Fatal(err)
	}
	wantAtWork(t, cmd, dir)
}

func TestServerOutlivesWhoReadsItsLog(t *testing.T) {
	t.Parallel()
	noSignals(t)
	world, dir := newWorld(t), t.TempDir()
	cmd, pipe := piped(t, nil, sandboxed(world, dir)...)
	readUntil(t, pipe, "msg=serving")
	// Each thing that it does is a line of the log.
	wantAtWork(t, cmd, dir)
}

func TestClosedTerminalEndsAServerCleanly(t *testing.T) {
	t.Parallel()
	noSignals(t)
	if signal.Ignored(syscall.SIGHUP) {
		t.Skip("these tests were started so that they outlive their terminal, and so would the server")
	}
	world, dir := newWorld(t), t.TempDir()
	c := startChild(t, nil, sandboxed(world, dir)...)
	c.log.wait(t, "msg=serving")
	for range 2 { // by the system, and by the shell
		if err := c.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	if code := c.wait(); code != exitOK || !strings.Contains(c.log.String(), "msg=stopping") {
		t.Errorf("ended with %d:\n%s", code, c.log)
	}
	if _, err := os.Stat(filepath.Join(dir, service.URLFile)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its address was left: %v", err)
	}
}

// TestServerUnderNohupOutlivesItsTerminal: had the first signal counted, the second
// would end it at once.
func TestServerUnderNohupOutlivesItsTerminal(t *testing.T) {
	t.Parallel()
	noSignals(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	world, dir := newWorld(t), t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	log := newOutput()
	cmd := exec.CommandContext(ctx, "sh", append([]string{"-c", `trap "" HUP; exec "$0" "$@"`, exe}, sandboxed(world, dir)...)...)
	cmd.Env = append(os.Environ(), reexec+"=1")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	log.wait(t, "msg=serving")
	for _, s := range []syscall.Signal{syscall.SIGHUP, syscall.SIGTERM} {
		if err := cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("ended with %v:\n%s", err, log)
	}
}
