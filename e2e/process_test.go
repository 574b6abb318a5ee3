//go:build e2e

package e2e

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

const (
	processLimit = 15 * time.Minute // no part outlives this, even if the test is killed
	stopLimit    = 10 * time.Second // from SIGTERM to SIGKILL
	startLimit   = time.Minute
	pollEvery    = 100 * time.Millisecond
	logTail      = 4096 // bytes of a log that a failure shows
)

// process is one running program with its output in a log file.
type process struct {
	name string
	log  string
	cmd  *exec.Cmd
	done chan struct{}
	err  error // set before done is closed

	ended bool // as it should
}

// start runs a program until the test ends or stop is called. The log goes to
// the test's artifacts.
func start(t *testing.T, name string, env []string, argv ...string) *process {
	t.Helper()
	p := &process{name: name, log: filepath.Join(t.ArtifactDir(), name+".log"), done: make(chan struct{})}
	// Appending: some programs run more than once under one name.
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatalf("log of %s: %v", name, err)
	}
	defer out.Close() //nolint:errcheck // the process has its own handle

	if timeout, err := exec.LookPath("timeout"); err == nil {
		limit := strconv.Itoa(int(processLimit.Seconds()))
		argv = append([]string{timeout, "--foreground", "--kill-after=5", limit}, argv...)
	}
	// Not t.Context(): it ends before cleanup, and a program should be asked first.
	p.cmd = exec.CommandContext(context.WithoutCancel(t.Context()), argv[0], argv[1:]...)
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}, env...)
	p.cmd.Dir = t.TempDir()
	p.cmd.Stdout, p.cmd.Stderr = out, out
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		if err := p.stop(); err != nil {
			t.Errorf("stop %s: %v\nend of its log:\n%s", name, err, p.tail())
		}
	})
	return p
}

// wait waits for a process that ends by itself.
func (p *process) wait() error {
	<-p.done
	p.ended = true
	return p.err
}

// stop ends the process and waits for it. Stopping twice is fine; stopping what
// has ended unasked is an error.
func (p *process) stop() error {
	if p.ended {
		return nil
	}
	p.ended = true
	select {
	case <-p.done:
		return fmt.Errorf("had ended by itself: %w", cmp.Or(p.err, errors.New("exit status 0")))
	default:
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(stopLimit):
	}
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-p.done
	return fmt.Errorf("did not stop within %s of SIGTERM, was killed", stopLimit)
}

// tail is the end of the process's log.
func (p *process) tail() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(bytes.TrimSpace(b[max(0, len(b)-logTail):]))
}

// ready waits until probe succeeds, and fails as soon as the process has ended.
func (p *process) ready(t *testing.T, probe func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startLimit)
	defer cancel()
	go func() {
		select {
		case <-p.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	if err := eventually(ctx, probe); err != nil {
		t.Fatalf("%s does not answer: %v\nend of its log:\n%s", p.name, err, p.tail())
	}
}

// eventually calls probe until it succeeds or ctx ends; then the last error
// says what was still wrong.
func eventually(ctx context.Context, probe func(context.Context) error) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		err := probe(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("gave up: %w (%w)", err, context.Cause(ctx))
		}
	}
}

// freePorts finds n different ports. Another program may take one before it is
// used; the parts cannot choose their own, because their names contain it.
func freePorts(t *testing.T, n int) []int {
	t.Helper()
	ports := make([]int, n)
	for i := range ports {
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatalf("find a free port: %v", err)
		}
		defer l.Close() //nolint:errcheck,gocritic // held until all are found
		addr, ok := l.Addr().(*net.TCPAddr)
		if !ok {
			t.Fatalf("listener has address %v", l.Addr())
		}
		ports[i] = addr.Port
	}
	return ports
}
