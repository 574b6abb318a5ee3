package backfill_test

import (
	"math/rand/v2"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/backfill"
	"appview/internal/api"
	"appview/internal/sandbox"
	"appview/store"
	"appview/store/jobs"
)

const (
	hour = time.Hour
	day  = 24 * hour
)

// setClock is a clock that goes on by itself and can be set.
type setClock struct{ ahead atomic.Int64 }

func (c *setClock) now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

// pass sets the clock forward, or back.
func (c *setClock) pass(d time.Duration) { c.ahead.Add(int64(d)) }

// kept is a rig whose tracked collections are kept fresh, by a clock that is set.
type kept struct {
	*rig
	clock *setClock
	o     options
	seen  int // jobs that were there after the last tick
}

func newKept(t *testing.T, world sandbox.Config, every time.Duration, collections ...syntax.NSID) *kept {
	t.Helper()
	clock := &setClock{}
	o := options{store: store.Config{Now: clock.now}, config: backfill.Config{Now: clock.now, Refresh: every, MaxJobs: 8}}
	k := &kept{rig: newRigWith(t, world, o), clock: clock, o: o}
	for _, c := range collections {
		if err := k.store.Collections.Track(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	return k
}

// tick lets what is due begin and everything end. It returns the jobs that began since
// the last tick: here, or in Run.
func (k *kept) tick() []jobs.Job {
	k.t.Helper()
	if err := k.b.RefreshDue(k.t.Context()); err != nil {
		k.t.Fatal(err)
	}
	k.idle()
	jobs := k.jobs()
	began := jobs[k.seen:]
	k.seen = len(jobs)
	return began
}

// idle waits until no job is unfinished.
func (k *kept) idle() {
	k.t.Helper()
	tick, late := time.NewTicker(2*time.Millisecond), time.After(patience)
	defer tick.Stop()
	for {
		list, err := k.store.Jobs.Unfinished(k.t.Context())
		if err != nil {
			k.t.Fatal(err)
		}
		if len(list) == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-late:
			k.t.Fatalf("jobs do not end: %+v", list)
		}
	}
}

// jobs are all jobs, in the order of their creation.
func (k *kept) jobs() []jobs.Job {
	k.t.Helper()
	list, err := k.store.Jobs.List(k.t.Context())
	if err != nil {
		k.t.Fatal(err)
	}
	slices.Reverse(list)
	return list
}

// restart lets another process take the place of this one.
func (k *kept) restart() {
	k.t.Helper()
	k.stop()
	k.run(k.o)
}

// TestWeekOfAWorldThatChanges keeps two collections fresh for a simulated week, hour
// by hour, with a restart, an outage of the relay, and a clock that jumps. After every
// run the index equals the world, and no job was made twice.
func TestWeekOfAWorldThatChanges(t *testing.T) {
	t.Parallel()
	collections := []syntax.NSID{sandbox.StatusCollection, sandbox.NoteCollection}
	k := newKept(t, sandbox.Config{Seed: 11, Repos: 25, Hosts: 3}, day, collections...)
	rng := rand.New(rand.NewPCG(11, 7)) //nolint:gosec // a test that can be repeated
	changes, runs := 0, 0
	var fault atomic.Bool
	k.world.SetFault(func(r sandbox.Request) sandbox.Fault {
		if fault.Load() && r.Part == sandbox.PartRelay {
			return sandbox.Fault{Name: "relay down", Status: http.StatusForbidden}
		}
		return sandbox.Fault{}
	})
	failed := 0
	for h := range 7 * 24 {
		for range 3 { // nothing is due meanwhile
			if _, err := k.world.Mutate(rng); err != nil {
				t.Fatal(err)
			}
			changes++
		}
		switch h {
		case 40:
			k.restart()
		case 70:
			fault.Store(true)
		case 82:
			fault.Store(false)
		}
		k.clock.pass(hour)
		began := k.tick()
		for _, j := range began {
			switch {
			case j.Status == api.StatusCompleted && !fault.Load():
				runs++
				k.wantTruth(j.Request.Collection)
			case j.Status == api.StatusFailed && fault.Load():
				failed++
			default:
				t.Errorf("hour %d: job is %s: %s", h, j.Status, j.Error)
			}
		}
		if len(began) > len(collections) {
			t.Errorf("hour %d: %d jobs began", h, len(began))
		}
		if again := k.tick(); len(again) != 0 {
			t.Errorf("hour %d: %d jobs began twice", h, len(again))
		}
	}
	if k.world.Faults("relay down") == 0 || failed == 0 {
		t.Errorf("the relay was never down: %d jobs failed", failed)
	}
	// 24 hours, and a tenth at most, and up to an hour until it is noticed; seven days.
	if want := 7 * len(collections); runs < want-2*len(collections) || runs > want {
		t.Errorf("%d complete runs over %d collections in a week", runs, len(collections))
	}
	k.oneAtATime(collections, day)
	t.Logf("%d changes, %d complete runs, %d failed ones", changes, runs, failed)
}

// oneAtATime wants the jobs over each collection to follow each other, and complete
// ones to be apart.
func (k *kept) oneAtATime(collections []syntax.NSID, apart time.Duration) {
	k.t.Helper()
	for _, c := range collections {
		var last, complete jobs.Job
		for _, j := range k.jobs() {
			if j.Request.Collection != c {
				continue
			}
			if j.Origin != api.OriginRefresh {
				k.t.Errorf("%s: a job of origin %s", c, j.Origin)
			}
			if last.Seq != 0 && j.CreatedAt.Before(last.CompletedAt) {
				k.t.Errorf("%s: a job was created at %s, another ended at %s", c, j.CreatedAt, last.CompletedAt)
			}
			if j.Status == api.StatusCompleted {
				if complete.Seq != 0 && j.StartedAt.Sub(complete.StartedAt) < apart {
					k.t.Errorf("%s: complete jobs began at %s and %s", c, complete.StartedAt, j.StartedAt)
				}
				complete = j
			}
			last = j
		}
	}
}

func TestClockThatJumpsStartsOneJob(t *testing.T) {
	t.Parallel()
	k := newKept(t, sandbox.Config{Seed: 3, Repos: 6, Hosts: 1}, day, sandbox.StatusCollection)
	want := func(what string, began int) {
		t.Helper()
		for i := range 3 {
			if i == 1 {
				k.restart()
			}
			if got := len(k.tick()); got != began {
				t.Errorf("%s, look %d: %d jobs began, want %d", what, i+1, got, began)
			}
			began = 0
		}
	}
	want("never read", 1)
	k.clock.pass(23 * hour)
	want("not a day old", 0)
	k.clock.pass(300 * day)
	want("a jump forward", 1)
	k.clock.pass(-200 * day)
	want("a jump back", 1)
	k.clock.pass(-2 * hour)
	want("a small jump back", 0)
	k.clock.pass(30 * hour)
	want("a day later", 1)
	k.wantTruth(sandbox.StatusCollection)
}

func TestFailedRefreshIsTriedAgainSooner(t *testing.T) {
	t.Parallel()
	k := newKept(t, sandbox.Config{Seed: 3, Repos: 6, Hosts: 1}, day, sandbox.StatusCollection)
	k.world.SetFault(func(r sandbox.Request) sandbox.Fault {
		if r.Part != sandbox.PartRelay {
			return sandbox.Fault{}
		}
		return sandbox.Fault{Name: "relay down", Status: http.StatusForbidden}
	})
	for i, least := range []time.Duration{
		0, 10 * time.Minute, 20 * time.Minute, 40 * time.Minute, 80 * time.Minute, 160 * time.Minute, 320 * time.Minute, 640 * time.Minute, 1280 * time.Minute, day, day,
	} {
		k.clock.pass(least - least/20)
		if i > 0 && len(k.tick()) != 0 {
			t.Errorf("attempt %d came before %s", i+1, least)
		}
		k.clock.pass(least/20 + least/10)
		if len(k.tick()) != 1 {
			t.Errorf("attempt %d did not come after %s", i+1, least)
		}
	}
	k.world.SetFault(nil)
	k.clock.pass(2 * day)
	if len(k.tick()) != 1 {
		t.Error("no job began when the relay was back")
	}
	k.wantTruth(sandbox.StatusCollection)
	k.clock.pass(hour)
	if len(k.tick()) != 0 {
		t.Error("it was read again after an hour")
	}
}

func TestCancelledRefreshIsLeftAlone(t *testing.T) {
	t.Parallel()
	k := newKept(t, sandbox.Config{Seed: 3, Repos: 6, Hosts: 1}, day, sandbox.StatusCollection)
	k.world.SetFault(func(r sandbox.Request) sandbox.Fault { return sandbox.Fault{Hang: r.Part == sandbox.PartPDS} })
	if err := k.b.RefreshDue(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := k.b.Move(t.Context(), k.jobs()[0].ID, api.StatusCancelling); err != nil {
		t.Fatal(err)
	}
	if n := len(k.tick()); n != 1 {
		t.Errorf("%d jobs began", n)
	}
	k.world.SetFault(nil)
	k.clock.pass(23 * hour)
	if len(k.tick()) != 0 {
		t.Error("a job that somebody cancelled was made again")
	}
	k.clock.pass(4 * hour)
	if len(k.tick()) != 1 {
		t.Error("a day later it was not")
	}
}

func TestCollectionThatIsBeingReadIsNotRefreshed(t *testing.T) {
	t.Parallel()
	for name, req := range map[string]jobs.Request{
		"its own job": {Collection: sandbox.StatusCollection}, "a job over all that is tracked": {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKept(t, sandbox.Config{Seed: 3, Repos: 6, Hosts: 1}, day)
			k.world.SetFault(func(r sandbox.Request) sandbox.Fault { return sandbox.Fault{Hang: r.Part == sandbox.PartPDS} })
			k.stop() // else it may have a job of its own as soon as the collection is tracked
			if err := k.store.Collections.Track(t.Context(), sandbox.StatusCollection); err != nil {
				t.Fatal(err)
			}
			job := k.create(req)
			k.run(k.o)
			k.create(jobs.Request{Collection: sandbox.StatusCollection, DID: "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"}) // reads not the network
			k.clock.pass(10 * day)
			if err := k.b.RefreshDue(t.Context()); err != nil {
				t.Fatal(err)
			}
			if n := len(k.jobs()); n != 2 {
				t.Errorf("%d jobs, want those that were asked for", n)
			}
			k.world.SetFault(nil)
			if _, err := k.b.Move(t.Context(), job.ID, api.StatusCancelling); err != nil {
				t.Fatal(err)
			}
			k.idle()
		})
	}
}

// TestRefreshLeavesRoomForOthers has more collections that are due than jobs may run
// at once: they get their turn one after the other, and do not queue up.
func TestRefreshLeavesRoomForOthers(t *testing.T) {
	t.Parallel()
	var all []syntax.NSID
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		all = append(all, syntax.NSID("com.example."+name))
	}
	k := newKept(t, sandbox.Config{Seed: 3, Repos: 4, Hosts: 1}, day)
	k.stop()
	k.o.config.MaxJobs = 2
	k.run(k.o)
	for _, c := range all {
		if err := k.store.Collections.Track(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	// Run notices the end of each job by itself, and makes the next one.
	if err := k.b.RefreshDue(t.Context()); err != nil {
		t.Fatal(err)
	}
	tick, late := time.NewTicker(time.Millisecond), time.After(patience)
	defer tick.Stop()
	for covered := 0; covered < len(all); {
		list, err := k.store.Jobs.Unfinished(t.Context())
		if err != nil || len(list) > 2 {
			t.Fatalf("%d jobs at once, %v", len(list), err)
		}
		covered = 0
		for _, c := range all {
			f, err := k.store.Collections.Freshness(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			if !f.SyncedAt.IsZero() {
				covered++
			}
		}
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("%d collections of %d were read", covered, len(all))
		}
	}
	k.idle()
	if n := len(k.jobs()); n != len(all) {
		t.Errorf("%d jobs for %d collections", n, len(all))
	}
}

func TestConfiguredCollectionIsReadOnce(t *testing.T) {
	t.Parallel()
	k := newKept(t, sandbox.Config{Seed: 3, Repos: 6, Hosts: 1}, 0)
	configure := func() {
		t.Helper()
		if err := k.b.ConfigureCollection(t.Context(), sandbox.StatusCollection); err != nil {
			t.Fatal(err)
		}
		k.idle()
	}
	configure()
	configure()
	if jobs := k.jobs(); len(jobs) != 1 || jobs[0].Origin != api.OriginStart {
		t.Errorf("jobs: %+v", jobs)
	}
	k.wantTruth(sandbox.StatusCollection)
	// One that was removed with its records is there again after a start that names it.
	if _, err := k.store.Collections.RemoveCollection(t.Context(), sandbox.StatusCollection, true); err != nil {
		t.Fatal(err)
	}
	configure()
	if n := len(k.tick()); n != 2 {
		t.Errorf("%d jobs", n)
	}
	k.wantTruth(sandbox.StatusCollection)
	k.clock.pass(1000 * day)
	if len(k.tick()) != 0 {
		t.Error("a job was made although nothing is to be refreshed")
	}
}

func TestRefreshIsSpreadAndTheSameAfterARestart(t *testing.T) {
	t.Parallel()
	k := newKept(t, sandbox.Config{Seed: 3, Repos: 2, Hosts: 1}, day)
	now := k.clock.now()
	seen := map[time.Time]bool{}
	for i := range 100 {
		c := jobs.Collection{NSID: sandbox.StatusCollection, Fresh: jobs.Freshness{Last: 1, SyncedAt: now.Add(-time.Duration(i) * time.Second)}}
		at := k.b.RefreshAt(c)
		wait := at.Sub(c.Fresh.SyncedAt)
		if wait < day || wait >= day+day/10 || !at.Equal(k.b.RefreshAt(c)) {
			t.Errorf("read again after %s", wait)
		}
		seen[at.Truncate(time.Minute)] = true
	}
	if len(seen) < 40 {
		t.Errorf("100 times fall into %d minutes", len(seen))
	}
}
