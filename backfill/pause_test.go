package backfill_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/google/uuid"

	"appview/backfill"
	"appview/internal/api"
	"appview/internal/sandbox"
	"appview/store"
	"appview/store/jobs"
	"appview/store/storetest"
)

// ask asks a job for something and wants that to be possible.
func (r *rig) ask(job jobs.Job, to api.Status) {
	r.t.Helper()
	if got, err := r.b.Move(r.t.Context(), job.ID, to); err != nil || got.Status != to {
		r.t.Fatalf("ask for %s: %+v, %v", to, got, err)
	}
}

// pause pauses a job and waits until it has.
func (r *rig) pause(job jobs.Job) jobs.Job {
	r.t.Helper()
	r.ask(job, api.StatusPausing)
	return r.await(job, "paused", func(j jobs.Job) bool { return j.Status == api.StatusPaused })
}

// restart ends the backfill and starts the next.
func (r *rig) restart() {
	r.t.Helper()
	r.stop()
	r.run(options{})
}

func TestPauseStopsAtOnceWhateverHostsDo(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	world := sandbox.Config{Seed: 60, Repos: 300, Hosts: 5, LargeRepos: 1, Collections: statuses(0, 3)}
	undisturbed := newRig(t, world).complete(jobs.Request{Collection: status})
	limited := http.Header{"Retry-After": {"3000"}, "Content-Type": {"application/json"}}
	for name, fault := range map[string]func(sandbox.Request) sandbox.Fault{
		"hosts hang": func(q sandbox.Request) sandbox.Fault { return sandbox.Fault{Hang: q.Method == listRecords} },
		"hosts want to be left alone": func(q sandbox.Request) sandbox.Fault {
			if q.Part != sandbox.PartPDS {
				return sandbox.Fault{}
			}
			return sandbox.Fault{Status: http.StatusTooManyRequests, Header: limited, Body: []byte(`{"error":"RateLimitExceeded"}`)}
		},
		"the directory hangs": func(q sandbox.Request) sandbox.Fault { return sandbox.Fault{Hang: q.Part == sandbox.PartPLC} },
		"the relay hangs":     func(q sandbox.Request) sandbox.Fault { return sandbox.Fault{Hang: q.Part == sandbox.PartRelay} },
		"nothing is wrong":    func(sandbox.Request) sandbox.Fault { return sandbox.Fault{} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, world)
			var faults atomic.Int64
			r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
				f := fault(q)
				if f.Hang || f.Status != 0 {
					faults.Add(1)
				}
				return f
			})
			job := r.create(jobs.Request{Collection: status})
			before := r.await(job, "far enough", func(j jobs.Job) bool { return faults.Load() > 0 || j.Processed > 10 })
			asked := time.Now()
			paused := r.pause(job)
			if took := time.Since(asked); took > time.Second {
				t.Errorf("paused after %s", took)
			}
			if stageIndex(paused.Stage) < stageIndex(before.Stage) {
				t.Errorf("the stage went from %s to %s", before.Stage, paused.Stage)
			}
			if paused.Error != "" || !paused.CompletedAt.IsZero() {
				t.Errorf("paused job: %+v", paused)
			}
			if waiting, _, _ := r.b.Progress(paused); waiting != "" {
				t.Errorf("a paused job waits for %q", waiting)
			}
			r.world.SetFault(nil)
			r.restart() // the pause outlives the process, and what hosts have asked of it
			if n := r.complete(jobs.Request{DID: r.world.Repos()[0].DID}).TotalRepos; n != 1 {
				t.Errorf("another job found %d repos", n)
			}
			if got := r.job(job); got.Status != api.StatusPaused || got.Stage != paused.Stage || got.Processed != paused.Processed {
				t.Errorf("paused as %+v, is %+v", paused, got)
			}
			r.ask(job, api.StatusRunning)
			if job = r.finish(job); job.Status != api.StatusCompleted {
				t.Fatalf("job: %+v", job)
			}
			want := undisturbed                          // which others compare with at the same time
			job.Tally.Created, want.Tally.Created = 0, 0 // one repo was read by the other job first
			wantCounters(t, job, want)
			r.wantTruth(status)
		})
	}
}

func TestPauseWorksOnAFullDiskAndResumeWaitsForRoom(t *testing.T) {
	t.Parallel()
	var free atomic.Uint64
	free.Store(1 << 40)
	o := options{store: store.Config{FreeSpace: func(string) (uint64, error) { return free.Load(), nil }}}
	r := newRigWith(t, sandbox.Config{Seed: 61, Repos: 40, Collections: statuses(1, 3)}, o)
	full(r, &free)
	job := r.create(jobs.Request{Collection: status})
	job = r.await(job, "waiting for disk", func(j jobs.Job) bool {
		waiting, _, _ := r.b.Progress(j)
		return waiting == "disk"
	})
	asked := time.Now()
	r.pause(job)
	if took := time.Since(asked); took > 3*time.Second {
		t.Errorf("paused after %s", took)
	}
	if _, err := r.b.Move(t.Context(), job.ID, api.StatusRunning); !errors.Is(err, store.ErrDiskFull) {
		t.Errorf("resume on a full disk: %v", err)
	}
	r.world.SetFault(nil)
	free.Store(1 << 40)
	r.await(job, "able to go on", func(jobs.Job) bool {
		_, err := r.b.Move(t.Context(), job.ID, api.StatusRunning)
		return err == nil
	})
	if job = r.finish(job); job.Status != api.StatusCompleted {
		t.Errorf("job: %+v", job)
	}
	r.wantTruth(status)
}

func TestPausedJobTakesNoPlace(t *testing.T) {
	t.Parallel()
	r := newRigWith(t, sandbox.Config{Seed: 62, Repos: 60}, options{config: backfill.Config{MaxJobs: 1}})
	r.world.SetFault(func(q sandbox.Request) sandbox.Fault { return sandbox.Fault{Hang: q.Collection == notes} })
	first := r.create(jobs.Request{Collection: notes})
	r.await(first, "started", func(j jobs.Job) bool { return !j.StartedAt.IsZero() })
	second := r.create(jobs.Request{Collection: status})
	third := r.create(jobs.Request{Collection: status})
	if waiting, _, _ := r.b.Progress(r.job(second)); waiting != "queue" {
		t.Fatalf("the second job waits for %q", waiting)
	}
	third = r.pause(third) // in the queue
	if third.Stage != api.StagePending || !third.StartedAt.IsZero() {
		t.Errorf("paused in the queue: %+v", third)
	}
	first = r.pause(first)
	if second = r.finish(second); second.Status != api.StatusCompleted {
		t.Errorf("the job behind a paused one: %+v", second)
	}
	r.world.SetFault(nil)
	for _, job := range []jobs.Job{first, third} {
		if job = r.job(job); job.Status != api.StatusPaused {
			t.Errorf("job: %+v", job)
		}
		r.ask(job, api.StatusRunning)
		if job = r.finish(job); job.Status != api.StatusCompleted || job.StartedAt.IsZero() {
			t.Errorf("job: %+v", job)
		}
	}
	r.wantTruth(notes)
	r.wantTruth(status)
}

func TestPausingBeforeACrashIsPausedAfterIt(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.Config{Seed: 63, Repos: 20})
	r.stop()
	job := r.create(jobs.Request{Collection: status}) // nobody works on it
	r.ask(job, api.StatusPausing)
	if got := r.job(job); got.Status != api.StatusPausing {
		t.Fatalf("job is %s", got.Status)
	}
	if err := r.b.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := r.job(job); got.Status != api.StatusPaused || got.Stage != api.StagePending {
		t.Errorf("after the start job is %s at %s", got.Status, got.Stage)
	}
}

// contract is how statuses may change, as the HTTP contract has it.
var contract = map[api.Status][]api.Status{
	api.StatusRunning:    {api.StatusCompleted, api.StatusFailed, api.StatusCancelling, api.StatusPausing},
	api.StatusPausing:    {api.StatusPaused, api.StatusCancelling},
	api.StatusPaused:     {api.StatusRunning, api.StatusCancelling},
	api.StatusCancelling: {api.StatusCancelled},
}

// leads reports whether the contract leads from one status to another, in any number
// of steps: a commit may hold several.
func leads(from, to api.Status) bool {
	seen, next := map[api.Status]bool{}, []api.Status{from}
	for len(next) > 0 {
		if next[0] == to {
			return true
		}
		if !seen[next[0]] {
			next = append(next, contract[next[0]]...)
		}
		seen[next[0]] = true
		next = next[1:]
	}
	return false
}

// stageIndex is where a stage stands in the contract's order.
func stageIndex(s api.Stage) int {
	return slices.Index([]api.Stage{
		api.StagePending, api.StageDiscovering, api.StageResolving, api.StageFetching, api.StageCompleted,
		api.StageFailed, api.StageCancelled,
	}, s)
}

// witness looks at every job after every commit.
type witness struct {
	t     *testing.T
	store atomic.Pointer[store.Store]

	mu    sync.Mutex // commits go on behind the end of the jobs
	seen  map[uuid.UUID]jobs.Job
	moves map[string]int
}

func (w *witness) look() error {
	jobList, err := w.store.Load().Jobs.List(context.Background())
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, now := range jobList {
		was, known := w.seen[now.ID]
		w.seen[now.ID] = now
		if !known {
			was = jobs.Job{Status: api.StatusRunning, Stage: api.StagePending}
		}
		if was.Status != now.Status {
			w.moves[string(was.Status)+" → "+string(now.Status)]++
		}
		switch {
		case !leads(was.Status, now.Status):
			w.t.Errorf("job went from %s to %s", was.Status, now.Status)
		case stageIndex(now.Stage) < stageIndex(was.Stage):
			w.t.Errorf("the stage went from %s to %s", was.Stage, now.Stage)
		case now.Status.Final() != (string(now.Stage) == string(now.Status)), now.Status.Final() == now.CompletedAt.IsZero():
			w.t.Errorf("%s job at stage %s, completed at %s", now.Status, now.Stage, now.CompletedAt)
		case now.Processed < was.Processed, now.TotalRepos < was.TotalRepos, now.Tally.Records < was.Tally.Records:
			w.t.Errorf("counters went from %+v to %+v", was, now)
		case now.Status == api.StatusCompleted && now.Processed != now.TotalRepos:
			w.t.Errorf("completed with %d of %d repos", now.Processed, now.TotalRepos)
		case was.Status.Final() && fmt.Sprint(was) != fmt.Sprint(now):
			w.t.Errorf("a final job was changed from %+v to %+v", was, now)
		}
	}
	return nil
}

// TestOrdersMayRaceEachOther has several users ask for whatever comes to their mind
// while jobs run, complete, and are carried on by the next process.
func TestOrdersMayRaceEachOther(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			w := &witness{t: t, seen: map[uuid.UUID]jobs.Job{}, moves: map[string]int{}}
			r := newRigWith(t, sandbox.Config{Seed: 64, Repos: 120, Hosts: 4, Collections: statuses(0, 3)}, options{
				store: store.Config{Hooks: store.Hooks{AfterCommit: func() error {
					if w.store.Load() == nil {
						return nil // the rig is not made yet
					}
					return w.look()
				}}},
			})
			w.store.Store(r.store)
			var mu sync.Mutex
			jobList := []jobs.Job{r.create(jobs.Request{Collection: status}), r.create(jobs.Request{DIDs: r.dids(40)})}
			for round := range uint64(3) {
				var users sync.WaitGroup
				for user := range uint64(4) {
					users.Go(func() {
						rng := rand.New(rand.NewPCG(seed, 10*round+user))
						for range 25 {
							mu.Lock()
							job := jobList[rng.IntN(len(jobList))]
							mu.Unlock()
							if more := r.whim(rng, job); more != nil {
								mu.Lock()
								jobList = append(jobList, *more)
								mu.Unlock()
							}
						}
					})
				}
				users.Wait()
				r.restart()
				for _, job := range jobList {
					if got := r.job(job); got.Status == api.StatusPausing || got.Status == api.StatusCancelling {
						t.Errorf("after a start a job is still %s", got.Status)
					}
				}
			}
			for _, job := range jobList {
				if r.job(job).Status == api.StatusPaused {
					r.ask(job, api.StatusRunning)
				}
				r.finish(job)
			}
			r.complete(jobs.Request{Collection: status})
			r.wantTruth(status)
			w.mu.Lock()
			defer w.mu.Unlock()
			t.Logf("seen: %v", w.moves)
			if len(w.moves) < 5 {
				t.Errorf("only these moves were seen: %v", slices.Sorted(maps.Keys(w.moves)))
			}
		})
	}
}

// whim asks for one thing or another, and wants an answer that the contract gives.
// It returns the job that came of it, if any.
func (r *rig) whim(rng *rand.Rand, job jobs.Job) *jobs.Job {
	to := []api.Status{api.StatusPausing, api.StatusRunning}[rng.IntN(2)]
	if rng.IntN(25) == 0 {
		to = api.StatusCancelling
	}
	var is *jobs.MoveError
	if rng.IntN(10) == 0 {
		more, err := r.b.Retry(r.t.Context(), job.ID)
		switch {
		case err == nil:
			return &more
		case errors.As(err, &is) && is.Status.Final(), !errors.Is(err, jobs.ErrMove) && !errors.Is(err, jobs.ErrNothingLeft):
			r.t.Errorf("retry: %v", err)
		}
		return nil
	}
	got, err := r.b.Move(r.t.Context(), job.ID, to)
	switch {
	case err == nil && got.Status == to:
	case !errors.As(err, &is), slices.Contains(contract[is.Status], to):
		r.t.Errorf("ask for %s: %+v, %v", to, got, err)
	}
	return nil
}

// dids are the DIDs of the first n repos.
func (r *rig) dids(n int) (list []syntax.DID) {
	for _, repo := range r.world.Repos()[:n] {
		list = append(list, repo.DID)
	}
	return list
}
