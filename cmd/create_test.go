package cmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"appview/internal/sandbox"
	"appview/store/storetest"
)

// nervous sends equal requests to the server on a data directory, each until it is
// answered with 201.
type nervous struct {
	dir, path, body string

	failed atomic.Int64 // requests that were not answered
	wg     sync.WaitGroup
	mu     sync.Mutex
	got    []string // Location and body of the answers
}

func (n *nervous) start(t *testing.T, clients int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	for range clients {
		n.wg.Go(func() {
			for tick := time.Tick(10 * time.Millisecond); ; {
				if answer, err := n.ask(ctx); err == nil {
					n.mu.Lock()
					n.got = append(n.got, answer)
					n.mu.Unlock()
					return
				}
				n.failed.Add(1)
				select {
				case <-tick:
				case <-ctx.Done():
					return
				}
			}
		})
	}
}

func (n *nervous) ask(ctx context.Context) (string, error) {
	c, err := (&program{}).newClient(clientOptions{dataDir: n.dir})
	if err != nil {
		return "", err
	}
	defer c.http.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+n.path, strings.NewReader(n.body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "Bearer "+c.key)
	req.Header.Set("Idempotency-Key", "nightly-2026-03-01")
	res, err := c.http.Do(req)
	if err != nil {
		return "", err
	}
	body, err := io.ReadAll(res.Body)
	if err := errors.Join(err, res.Body.Close()); err != nil {
		return "", err
	}
	if res.StatusCode != http.StatusCreated {
		return "", errors.New(res.Status)
	}
	return res.Header.Get("Location") + " " + string(body), nil
}

// answers are what the clients have been given by now.
func (n *nervous) answers() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.got)
}

// oneJob fails unless all clients were given one answer, and there is one job.
func (n *nervous) oneJob(t *testing.T, clients int) {
	t.Helper()
	n.wg.Wait()
	got := n.answers()
	if len(got) != clients || len(slices.Compact(slices.Sorted(slices.Values(got)))) != 1 {
		t.Errorf("%d answers: %q", len(got), got)
	}
	var jobs []jobNow
	if err := json.Unmarshal(ask(t, n.dir, "/admin/backfill/status"), &jobs); err != nil {
		t.Fatal(err)
	}
	if len(jobs) != 1 || !strings.Contains(got[0], jobs[0].ID) {
		t.Errorf("%d jobs: %v, the answer was %s", len(jobs), jobs, got[0])
	}
}

// killStalled kills a child whose commit stalls.
func killStalled(t *testing.T, c *child, file string) {
	t.Helper()
	until(t, "a commit stalls", func() bool { _, err := os.Stat(file + ".stalled"); return err == nil })
	if err := c.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	c.wait()
}

// TestNervousScriptOverAKillMakesOneJob has twenty clients send one request, and kills the
// server before the commit that makes the job, between it and the answers, and at random.
func TestNervousScriptOverAKillMakesOneJob(t *testing.T) {
	t.Parallel()
	const clients = 20
	for name, env := range map[string]string{"before the commit": stall, "before the answers": stallMade} {
		for _, path := range []string{"/admin/backfill", "/admin/collections"} {
			t.Run(name+path, func(t *testing.T) {
				t.Parallel()
				world, dir, file := newWorld(t), t.TempDir(), filepath.Join(t.TempDir(), "stall")
				hang(world)
				c := startChild(t, []string{env + "=" + file}, sandboxed(world, dir)...)
				c.log.wait(t, "msg=serving")
				write(t, file, "")
				n := &nervous{dir: dir, path: path, body: fmt.Sprintf(`{"collection":%q}`, sandbox.StatusCollection)}
				n.start(t, clients)
				killStalled(t, c, file)
				// Behind the commit those who come later read the reply from the file.
				if got := n.answers(); len(got) == clients || env == stall && len(got) > 0 {
					t.Fatalf("not killed in the middle: %q", got)
				}
				s := serveIn(t, world, dir)
				n.oneJob(t, clients)
				if n.failed.Load() == 0 {
					t.Error("no request has failed: this proves nothing")
				}
				s.end()
				want(t, exitOK, "is consistent", nil, "check", "--data-dir", dir)
			})
		}
	}
	for _, seed := range storetest.Seeds(t, 2) {
		t.Run("at random "+seed.String(), func(t *testing.T) {
			t.Parallel()
			world, dir, rng := newWorld(t), t.TempDir(), seed.Rand()
			hang(world)
			n := &nervous{dir: dir, path: "/admin/backfill", body: "{}"}
			for i := range 3 {
				c := startChild(t, nil, sandboxed(world, dir)...)
				c.log.wait(t, "msg=serving")
				if i == 0 {
					n.start(t, clients)
				}
				moment := time.NewTimer(time.Duration(rng.IntN(20_000)) * time.Microsecond)
				<-moment.C
				if err := c.cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
				c.wait()
			}
			t.Logf("%d answers before the last kill, %d requests failed", len(n.answers()), n.failed.Load())
			s := serveIn(t, world, dir)
			n.oneJob(t, clients)
			s.end()
			want(t, exitOK, "is consistent", nil, "check", "--data-dir", dir)
		})
	}
}

// TestCommandWhoseAnswerIsLostMakesOneJob kills the server between the commit and the
// answer to a command, and starts it again.
func TestCommandWhoseAnswerIsLostMakesOneJob(t *testing.T) {
	t.Parallel()
	status := sandbox.StatusCollection.String()
	for name, args := range map[string][]string{
		"create": {"backfill", "create", "--collection", status},
		"add":    {"collections", "add", status},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			world, dir, file := newWorld(t), t.TempDir(), filepath.Join(t.TempDir(), "stall")
			hang(world)
			c := startChild(t, []string{stallMade + "=" + file}, sandboxed(world, dir)...)
			c.log.wait(t, "msg=serving")
			write(t, file, "")
			printed := make(chan string, 1)
			go func() { printed <- want(t, exitOK, "", nil, append(args, "--data-dir", dir)...) }()
			killStalled(t, c, file)
			s := serveIn(t, world, dir)
			text := <-printed
			var jobs []jobNow
			if err := json.Unmarshal(ask(t, dir, "/admin/backfill/status"), &jobs); err != nil || len(jobs) != 1 || !strings.Contains(text, jobs[0].ID) {
				t.Errorf("%v, jobs %v, printed:\n%s", err, jobs, text)
			}
			s.end()
		})
	}
}

// TestCommandRepeatsWhatMayBeDone: only where the answer is lost, and under one name.
func TestCommandRepeatsWhatMayBeDone(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answers []int // statuses; 0: the connection breaks
		text    string
		code    int
	}{
		"broken twice":        {[]int{0, 0, http.StatusCreated}, "created job 7", exitOK},
		"stops, then is back": {[]int{0, http.StatusServiceUnavailable, http.StatusCreated}, "created job 7", exitOK},
		"refused":             {[]int{http.StatusBadRequest}, "it is wrong", exitError},
		"full":                {[]int{http.StatusInsufficientStorage}, "it is wrong", exitError},
		"broken, refused":     {[]int{0, http.StatusForbidden}, "it is wrong", exitError},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			keys := make(chan string, 10)
			hs := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				keys <- r.Header.Get("Idempotency-Key")
				status := c.answers[min(len(keys), len(c.answers))-1]
				if status == 0 {
					panic(http.ErrAbortHandler)
				}
				w.WriteHeader(status)
				if status == http.StatusCreated {
					_, _ = io.WriteString(w, `{"id":"7c0e8a3e-3c55-4dd3-9a5a-0b3d3f7c1a20","status":"running"}`)
				} else {
					_, _ = io.WriteString(w, `{"error":"it is wrong"}`)
				}
			}))
			defer hs.Close()
			want(t, c.code, c.text, nil, "backfill", "create", "--url", hs.URL, "--key", testKey)
			close(keys)
			seen := slices.Collect(func(yield func(string) bool) {
				for key := range keys {
					if !yield(key) {
						return
					}
				}
			})
			if len(seen) != len(c.answers) || seen[0] == "" || len(slices.Compact(seen)) != 1 {
				t.Errorf("%d requests, want %d; their keys: %q", len(seen), len(c.answers), seen)
			}
		})
	}
}

// TestCommandThatGetsNoAnswerSaysSo is ended while it waits for the server.
func TestCommandThatGetsNoAnswerSaysSo(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	var asked atomic.Int64
	hs := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		if asked.Add(1) == 2 {
			cancel()
		}
		panic(http.ErrAbortHandler)
	}))
	defer hs.Close()
	out, errs := newOutput(), newOutput()
	code := run(ctx, []string{"backfill", "create", "--url", hs.URL, "--key", testKey}, nil, out, errs)
	if text := errs.String(); code != exitError || !strings.Contains(text, "whether the job was created is not known") || strings.Count(text, "\n") != 1 {
		t.Errorf("ended with %d: %s%s", code, out, text)
	}
}
