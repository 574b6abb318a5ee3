package backfill_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/network/outcome"
	"appview/internal/sandbox"
	"appview/internal/sandbox/zoo"
	"appview/store"
	"appview/store/jobs"
	"appview/store/storetest"
)

// fullBytes is what an account may take of the file in these tests.
const fullBytes = 512 << 10

// fullWorld has a repo to which its host adds records without an end.
func fullWorld(t *testing.T, b zoo.Behaviour) (r *rig, did syntax.DID) {
	t.Helper()
	r = newRigWith(t, sandbox.Config{Seed: 171, Repos: 6, Hosts: 2, Collections: statuses(2, 4)}, options{store: store.Config{MaxAccountBytes: fullBytes}})
	r.liar = r.world.Repos()[0].DID
	r.world.Assign(r.liar, b)
	return r, r.liar
}

// bytesOf is what an account takes of the file.
func (r *rig) bytesOf(did syntax.DID) int64 {
	r.t.Helper()
	repo, err := r.store.Index.Repo(r.t.Context(), did)
	if err != nil {
		r.t.Fatal(err)
	}
	return repo.Bytes
}

// TestEndlessRepoIsBounded reads a repo that its host makes up without an end, in job
// after job: a new one, one that carries it on, and one after a restart. Each ends, the
// repo failed for that and counted once, and the file does not grow any more.
func TestEndlessRepoIsBounded(t *testing.T) {
	t.Parallel()
	for name, b := range map[string]zoo.Behaviour{
		"records": zoo.EndlessRecords(100, 300), "small records": zoo.EndlessRecords(100, 0), "rejects": zoo.EndlessRejects(100),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, did := fullWorld(t, b)
			first := r.complete(jobs.Request{Collection: status})
			wantFull := func(job jobs.Job, others int64) {
				t.Helper()
				if job.Failed != 1 || job.Reasons["too_large"] != 1 || job.Reasons["exact"] != others || job.Processed != others+1 || job.Tally.Deleted != 0 {
					t.Errorf("job %d: %d settled, %d failed, %+v, %v", job.Seq, job.Processed, job.Failed, job.Tally, job.Reasons)
				}
				repo := r.ended(job, did, outcome.ClassFailed, outcome.ReasonTooLarge)
				if !strings.Contains(repo.Detail, "--max-account-bytes") {
					t.Errorf("the report says %q", repo.Detail)
				}
				r.wantTruth("")
			}
			wantFull(first, 5)
			takes := r.bytesOf(did)
			if takes > fullBytes || name != "rejects" && takes < fullBytes*3/5 {
				t.Errorf("it takes %d bytes of %d", takes, fullBytes)
			}
			st, err := r.store.Stats(t.Context())
			if used := st.FileBytes - st.FreeBytes; err != nil || used > fullBytes*3/2+1<<20 {
				t.Errorf("%d bytes of the file are used, %v", used, err)
			}
			served := len(r.servedOf(did))
			wantFull(r.retry(first), 0)
			r.restart()
			wantFull(r.complete(jobs.Request{Collection: status}), 5)
			for _, url := range r.world.HostURLs() { // it moves, and is no other account for it
				if url != r.world.Repos()[0].Host {
					r.must(r.world.Move(did, url))
					break
				}
			}
			wantFull(r.complete(jobs.Request{Collection: status}), 5)
			if got := r.bytesOf(did); got != takes || len(r.servedOf(did)) != served {
				t.Errorf("it takes %d bytes, before %d; %d records are served, before %d", got, takes, len(r.servedOf(did)), served)
			}
		})
	}
}

// TestWholeRepoIsReadPastAnEndlessListing has a host that gives the repo whole, and makes
// its listing up.
func TestWholeRepoIsReadPastAnEndlessListing(t *testing.T) {
	t.Parallel()
	r, did := fullWorld(t, zoo.EndlessPages())
	r.liar = ""
	job := r.complete(jobs.Request{Collection: status})
	if job.Failed != 0 || job.Reasons["exact"] != 6 {
		t.Errorf("job: %+v", job)
	}
	r.ended(job, did, outcome.ClassDone, outcome.ReasonExact)
	r.wantTruth("")
}

// TestFullAccountInEveryWayOfReading has an account write more than it may take, read on
// one page, in steps, and whole. What was held before stays, also what the repo no
// longer has, and is served. When the bound is raised, all is read.
func TestFullAccountInEveryWayOfReading(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		records, size int
		listed        bool
	}{
		"on one page": {30, 20_000, true}, "in steps": {1200, 600, true}, "whole": {1200, 600, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRigWith(t, sandbox.Config{Seed: 172, Repos: 4, Hosts: 1, Collections: statuses(3, 3)}, options{store: store.Config{MaxAccountBytes: fullBytes}})
			did := r.world.Repos()[0].DID
			if c.listed {
				listOnly(r.world, nil)
			}
			r.complete(jobs.Request{Collection: status})
			r.wantTruth("")
			before := r.servedOf(did)
			r.must(r.world.Delete(did, status, syntax.RecordKey(before[0][strings.LastIndexByte(before[0], '/')+1:])))
			for n := range c.records {
				value := butterfly()
				value["text"] = fmt.Sprint(n) + strings.Repeat("x", c.size)
				if _, err := r.world.Create(did, status, "", value); err != nil {
					t.Fatal(err)
				}
			}
			job := r.complete(jobs.Request{Collection: status})
			r.ended(job, did, outcome.ClassFailed, outcome.ReasonTooLarge)
			if job.Reasons["exact"] != 3 || job.Tally.Deleted != 0 || r.bytesOf(did) > fullBytes {
				t.Errorf("job: %+v; the account takes %d bytes", job, r.bytesOf(did))
			}
			if got := r.servedOf(did); !subset(before, got) {
				t.Errorf("of what was held, %v, there is %v", before, got)
			}
			r.stop()
			if err := r.store.Close(); err != nil {
				t.Fatal(err)
			}
			r.store = storetest.OpenPath(t, r.path)
			r.run(options{})
			job = r.retry(job)
			r.ended(job, did, outcome.ClassDone, outcome.ReasonExact)
			r.wantTruth("")
		})
	}
}

// subset reports whether all of the one list are in the other.
func subset(one, other []string) bool {
	return !slices.ContainsFunc(one, func(s string) bool { return !slices.Contains(other, s) })
}

// fullness is a short life with an account that becomes full.
var fullness = []act{
	{"job 1 reads what has no end", func(ctx context.Context, p *process) error { return p.complete(ctx, p.network, 1) }},
	{"the program is started again", func(context.Context, *process) error { return errRestart }},
	{"job 2 carries it on", func(ctx context.Context, p *process) error { return p.complete(ctx, p.carryOn, 2) }},
}

// TestFullAccountIsCountedOnceOverACrash ends the process around commits of jobs over an
// account that becomes full: around each that reads of it or settles, and with SOAK_SEEDS
// set around all others too. They end as those that nothing has disturbed.
func TestFullAccountIsCountedOnceOverACrash(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	l := &lifetime{name: "fullness", resting: []int{1, 2}, make: func(t *testing.T) *life {
		t.Helper()
		l := newLife(t, sandbox.Config{Seed: 173, Repos: 2, Hosts: 1, Collections: statuses(1, 3)}, fullness, false)
		l.most, l.liar = fullBytes, l.did(0)
		l.world.Assign(l.liar, zoo.EndlessRecords(100, 100))
		return l
	}}
	kinds := commitKinds(t)
	c := &crash{kinds: kinds, n: -1, met: map[string]int{}}
	one := l.make(t)
	if !one.live(c.hooks()) {
		t.Fatal("the undisturbed life does not come to its end")
	}
	l.jobs, l.kinds, l.commits = one.verify(), c.met, c.seen
	for _, j := range l.jobs {
		if j.Failed != 1 || j.Reasons["too_large"] != 1 {
			t.Fatalf("job %d: %+v", j.Seq, j)
		}
	}
	for _, after := range []bool{false, true} {
		for _, kind := range kinds {
			steps := strings.HasPrefix(kind, "save pages") || strings.HasPrefix(kind, "settle")
			if l.kinds[kind] == 0 || !steps && storetest.Soaking(t) == 0 {
				continue
			}
			t.Run(fmt.Sprintf("%safter the commit %t", kind, after), func(t *testing.T) {
				t.Parallel()
				for n := 1; n <= l.kinds[kind]; n++ {
					c := &crash{kinds: kinds, kind: kind, n: n, after: after, met: map[string]int{}}
					if !l.again(t, c) && n == 1 {
						t.Errorf("there is no commit that does %q", kind)
					}
				}
			})
		}
	}
}
