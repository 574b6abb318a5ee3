package cmd

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"appview/cmd/service"
	"appview/internal/sandbox"
	"appview/internal/sandbox/sandboxtest"
	"appview/store"
)

// reexec makes the test binary be the program. Its name is no APPVIEW_ variable,
// which would be refused.
const reexec = "TEST_RUNS_APPVIEW"

// asUser is the id of the user that the program is to be run by. Only root may ask for it.
const asUser = "TEST_RUNS_AS_USER"

// stall names a file: while it exists, commits do not end.
const stall = "TEST_STALLS_COMMITS"

// stallMade is the same of commits that make a job, when they are made and before anybody
// hears of it.
const stallMade = "TEST_STALLS_MADE_JOBS"

// stallHooks are the hooks that the environment asks for.
func stallHooks() (hooks store.Hooks) {
	if file := os.Getenv(stall); file != "" {
		hooks.BeforeCommit = func() error { return stallCommit(file) }
	}
	if file := os.Getenv(stallMade); file != "" {
		made := false // both hooks are the writer's
		hooks.Making = func(op string) {
			made = made || op == "create job" || op == "retry job" || strings.HasPrefix(op, "add ")
		}
		hooks.AfterCommit = func() error {
			if made {
				return stallCommit(file)
			}
			return nil
		}
	}
	return hooks
}

func stallCommit(file string) error {
	if _, err := os.Stat(file); err != nil {
		return nil //nolint:nilerr // it is not there
	}
	if err := os.WriteFile(file+".stalled", nil, 0o600); err != nil {
		return err
	}
	select {}
}

func TestMain(m *testing.M) {
	if os.Getenv(reexec) != "" {
		if err := becomeUser(os.Getenv(asUser)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(exitError) //nolint:forbidigo // it is a process of its own
		}
		p := &program{environ: os.Environ(), hooks: stallHooks()}
		os.Exit(p.execute()) //nolint:forbidigo // here the test binary stands in for main
	}
	if file := os.Getenv(rebare); file != "" {
		if err := runBareLoop(context.Background(), file); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(exitError) //nolint:forbidigo // it is a process of its own
		}
		return
	}
	m.Run()
}

const (
	testKey  = "hv_the-key-of-these-tests-0123"
	patience = 20 * time.Second // for anything that should happen soon
)

// output is what a command prints, readable while it prints.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
	hit chan struct{} // something was printed
}

func newOutput() *output { return &output{hit: make(chan struct{}, 1)} }

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	select {
	case o.hit <- struct{}{}:
	default:
	}
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// wait waits until the output holds the text.
func (o *output) wait(tb testing.TB, text string) {
	tb.Helper()
	late := time.After(patience)
	for !strings.Contains(o.String(), text) {
		select {
		case <-o.hit:
		case <-late:
			tb.Fatalf("%q was never printed, but:\n%s", text, o)
		}
	}
}

// runs runs a command line in this process.
func runs(tb testing.TB, environ []string, args ...string) (code int, stdout, stderr string) {
	tb.Helper()
	out, errs := newOutput(), newOutput()
	code = run(tb.Context(), args, environ, out, errs)
	return code, out.String(), errs.String()
}

// want fails unless the command line ends with the code and prints the text.
func want(tb testing.TB, code int, text string, environ []string, args ...string) string {
	tb.Helper()
	got, stdout, stderr := runs(tb, environ, args...)
	if got != code || !strings.Contains(stdout+stderr, text) {
		tb.Errorf("%s\nended with %d, want %d and %q, printed:\n%s%s", strings.Join(args, " "), got, code, text, stdout, stderr)
	}
	if code != exitOK && strings.Count(stderr, "\n") != 1 && !strings.Contains(stderr, "level=") {
		tb.Errorf("%s\nis not one clear line:\n%s", strings.Join(args, " "), stderr)
	}
	return stdout
}

// serving is a server that runs in this process.
type serving struct {
	t    *testing.T
	dir  string
	url  string
	stop context.CancelFunc
	log  *output
	code chan int
}

// serveIn starts a server over a world on a data directory.
func serveIn(t *testing.T, world *sandbox.World, dir string, args ...string) *serving {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	s := &serving{t: t, dir: dir, stop: stop, log: newOutput(), code: make(chan int, 1)}
	args = append([]string{
		"serve", "--data-dir", dir, "--listen", "127.0.0.1:0", "--relay", world.RelayURL(), "--plc", world.PLCURL(),
		"--allow-private-hosts", "--host-rps", "10000", "--plc-rps", "10000",
	}, args...)
	go func() { s.code <- run(ctx, args, nil, s.log, s.log) }()
	t.Cleanup(stop)
	s.log.wait(t, "msg=serving")
	s.url = strings.TrimSpace(read(t, filepath.Join(dir, service.URLFile)))
	return s
}

// end stops the server and returns its exit code.
func (s *serving) end() int {
	s.t.Helper()
	s.stop()
	select {
	case code := <-s.code:
		return code
	case <-time.After(patience):
		s.t.Fatalf("the server does not end:\n%s", s.log)
		return -1
	}
}

func read(tb testing.TB, path string) string {
	tb.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	return string(data)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func newWorld(t *testing.T) *sandbox.World {
	t.Helper()
	return sandboxtest.Start(t, sandbox.Config{Seed: 7, Repos: 30, Hosts: 3})
}

// child is the program in a process of its own.
type child struct {
	t   testing.TB
	cmd *exec.Cmd
	log *output
}

func startChild(tb testing.TB, environ []string, args ...string) *child {
	tb.Helper()
	return startChildFor(tb, time.Minute, environ, args...)
}

// startChildIn starts a child behind what a shell is told first.
func startChildIn(tb testing.TB, first string, args ...string) *child {
	tb.Helper()
	exe, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	return startCommand(tb, time.Minute, nil, "/bin/sh", append([]string{"-c", first + ` && exec "$0" "$@"`, exe}, args...)...)
}

// startChildFor starts a child that may live so long.
func startChildFor(tb testing.TB, limit time.Duration, environ []string, args ...string) *child {
	tb.Helper()
	exe, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	return startCommand(tb, limit, environ, exe, args...)
}

func startCommand(tb testing.TB, limit time.Duration, environ []string, name string, args ...string) *child {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), limit)
	tb.Cleanup(cancel)
	c := &child{t: tb, cmd: exec.CommandContext(ctx, name, args...), log: newOutput()}
	c.cmd.Env = append([]string{reexec + "=1", "PATH=" + os.Getenv("PATH")}, environ...)
	c.cmd.Stdout, c.cmd.Stderr = c.log, c.log
	if err := c.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	return c
}

// wait returns the exit code.
func (c *child) wait() int {
	c.t.Helper()
	_ = c.cmd.Wait() // tells no more than the state
	return c.cmd.ProcessState.ExitCode()
}
