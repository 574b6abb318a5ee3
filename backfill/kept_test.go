package backfill_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/sandbox"
	"appview/internal/sandbox/zoo"
	"appview/store"
	"appview/store/index"
	"appview/store/jobs"
	"appview/store/storetest"
)

// asked is how often a repo's host was asked for something of it.
type asked struct{ probes, descriptions, listings, wholes int }

func (r *rig) asked(did syntax.DID) (n asked) {
	counts := map[string]*int{repoStatus: &n.probes, describeRepo: &n.descriptions, listRecords: &n.listings, getRepo: &n.wholes}
	for _, q := range r.world.Requests(func(q sandbox.Request) bool { return q.Part == sandbox.PartPDS && q.DID == did.String() }) {
		if c := counts[q.Method]; c != nil {
			*c++
		}
	}
	return n
}

// TestAccountThatComesBackIsReadOnlyIfItHasChanged has an account go and come back
// between two jobs. What the index has kept of it is served again without being asked
// for, if and only if it is known to be just what the repo holds.
func TestAccountThatComesBackIsReadOnlyIfItHasChanged(t *testing.T) {
	t.Parallel()
	one, both, all := jobs.Request{Collection: status}, jobs.Request{}, jobs.Request{}
	for name, c := range map[string]struct {
		tracked []syntax.NSID // what both covers
		first   jobs.Request
		reading func(*rig, syntax.DID) // during the first job, at each listing of the repo
		between func(*rig, syntax.DID) // the first job and its leaving
		leave   func(*sandbox.World, syntax.DID) error
		away    func(*rig, syntax.DID)
		back    func(*rig, syntax.DID)
		second  jobs.Request
		want    asked
	}{
		"deactivated":            {first: one, second: one, want: asked{probes: 1}},
		"taken down":             {first: one, leave: (*sandbox.World).TakeDown, second: one, want: asked{probes: 1}},
		"suspended":              {first: one, leave: (*sandbox.World).Suspend, second: one, want: asked{probes: 1}},
		"named by its did":       {first: one, second: jobs.Request{Collection: status, DID: "it"}, want: asked{probes: 1}},
		"two collections":        {tracked: []syntax.NSID{status, notes}, first: both, second: both, want: asked{probes: 1}},
		"all collections":        {first: all, second: all, want: asked{probes: 2, descriptions: 1}},
		"one of two is new":      {tracked: []syntax.NSID{status, notes}, first: one, second: both, want: asked{probes: 2, listings: 2}},
		"one of all is new":      {first: one, second: all, want: asked{probes: 1, descriptions: 1, wholes: 1}},
		"another is read before": {first: jobs.Request{Collection: notes}, second: one, want: asked{probes: 1, listings: 2}},
		"one of all has changed before": {first: all, between: func(r *rig, did syntax.DID) {
			write(r, did)
			r.complete(one)
		}, second: all, want: asked{probes: 1, wholes: 1}},
		"one of two is empty": {tracked: []syntax.NSID{status, notes}, first: both, between: func(r *rig, did syntax.DID) {
			for _, rec := range r.world.TruthOf(did, status) {
				r.must(r.world.Delete(did, status, rec.RKey))
			}
			r.complete(both)
		}, second: both, want: asked{probes: 1}},
		"it is emptied":  {first: one, back: empty, second: one, want: asked{probes: 1, listings: 1}},
		"it has changed": {first: one, back: write, second: one, want: asked{probes: 1, listings: 2}},
		"all, and it has changed": {
			first: all, back: write, second: all, want: asked{probes: 1, wholes: 1},
		},
		"records were deleted here": {
			first: one, away: func(r *rig, did syntax.DID) {
				if n, err := r.store.Collections.DeleteRecords(r.t.Context(), index.Filter{DID: did}); err != nil || n == 0 {
					r.t.Errorf("%d records deleted, %v", n, err)
				}
			}, second: one, want: asked{probes: 1, listings: 2},
		},
		"it changed while it was read": {
			tracked: []syntax.NSID{status, notes}, first: both, reading: write, second: both, want: asked{probes: 2, listings: 4},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, sandbox.Config{Seed: 21, Repos: 5, Hosts: 1, Collections: []sandbox.Collection{
				{NSID: status, Share: 1, MinRecords: 2, MaxRecords: 3}, {NSID: notes, Share: 1, MinRecords: 1, MaxRecords: 3},
			}})
			for _, nsid := range c.tracked {
				r.must(r.store.Collections.Track(t.Context(), nsid))
			}
			did := r.world.Repos()[2].DID
			if c.second.DID != "" {
				c.second.DID = did
			}
			if c.leave == nil {
				c.leave = (*sandbox.World).Deactivate
			}
			if c.reading != nil {
				r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
					if q.Method == listRecords && q.DID == did.String() {
						c.reading(r, did)
					}
					return sandbox.Fault{}
				})
			}
			first := r.complete(c.first)
			r.world.SetFault(nil)
			if c.reading != nil && first.Reasons["changed_during_read"] != 1 {
				t.Fatalf("the first job ended with %v", first.Reasons)
			}
			if c.between != nil {
				c.between(r, did)
			}
			r.must(c.leave(r.world, did))
			r.complete(c.first) // which learns of it
			if repo, err := r.store.Index.Repo(t.Context(), did); err != nil || repo.Active() {
				t.Fatalf("the account is %q, %v", repo.Account, err)
			}
			if c.away != nil {
				c.away(r, did)
			}
			r.must(r.world.Activate(did))
			if c.back != nil {
				c.back(r, did)
			}
			before := r.seq()
			r.world.ResetRequests()
			job := r.complete(c.second)

			if got := r.asked(did); got != c.want {
				t.Errorf("its host was asked %+v, want %+v", got, c.want)
			}
			r.wantTruth(c.second.Collection)
			if kept := c.want.listings+c.want.wholes == 0; kept && r.seq() != before {
				t.Errorf("it is kept, and %d records were written", r.seq()-before)
			}
			read, _, err := r.store.Jobs.JobRepos(t.Context(), job.Seq, "", 100, func(o jobs.JobRepo) bool { return o.DID == did })
			held := r.world.TruthOf(did, c.second.Collection)
			if c.second.Collection == "" {
				held = r.world.TruthOf(did)
			}
			if err != nil || len(read) != 1 || read[0].Records != int64(len(held)) || read[0].Class != jobs.ClassDone {
				t.Errorf("the job has it as %+v, %v; want %d records", read, err, len(held))
			}
			if repo, err := r.store.Index.Repo(t.Context(), did); err != nil || !repo.Active() {
				t.Errorf("afterwards the account is %q, %v", repo.Account, err)
			}
		})
	}
}

// write changes a repo, empty empties it.
func write(r *rig, did syntax.DID) {
	_, err := r.world.Create(did, status, "", butterfly())
	r.must(err)
}

func empty(r *rig, did syntax.DID) {
	_, err := r.world.Empty(did)
	r.must(err)
}

// TestWhatIsKeptIsLookedAtAgainAfterARestart ends the process while one collection of an
// account that has come back is read in steps, and another is kept as it is held: it is
// kept from there on only if it is still all there.
func TestWhatIsKeptIsLookedAtAgainAfterARestart(t *testing.T) {
	t.Parallel()
	for name, deleted := range map[string]bool{"nothing happens": false, "records are deleted": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, sandbox.Config{Seed: 22, Repos: 1, Hosts: 1, Collections: []sandbox.Collection{
				{NSID: status, Share: 1, MinRecords: 3, MaxRecords: 3}, {NSID: notes, Share: 1, MinRecords: 2000, MaxRecords: 2000},
			}})
			did := r.world.Repos()[0].DID
			listOnly(r.world, nil)
			r.complete(jobs.Request{Collection: status})
			r.must(r.world.Deactivate(did))
			r.complete(jobs.Request{Collection: status})
			r.must(r.world.Activate(did))
			r.world.ResetRequests()
			r.must(errors.Join(r.store.Collections.Track(t.Context(), status), r.store.Collections.Track(t.Context(), notes)))
			job := r.stopInTheMiddle(jobs.Request{}, notes)
			if deleted {
				if n, err := r.store.Collections.DeleteRecords(t.Context(), index.Filter{Collection: status}); err != nil || n != 3 {
					t.Fatalf("%d records deleted, %v", n, err)
				}
			}
			r.run(options{})
			job = r.finish(job)
			r.wantTruth("")
			if job.Tally.Records != 2003 || job.Reasons["exact"] != 1 {
				t.Errorf("job: %+v", job)
			}
			listed := r.world.Requests(func(q sandbox.Request) bool { return q.Method == listRecords && q.Collection == status })
			if (len(listed) > 0) != deleted {
				t.Errorf("what was kept was listed with %d requests, deleted %t", len(listed), deleted)
			}
		})
	}
}

// TestAccountThatComesBackAndChangesMeanwhile has a repo of many collections change
// while its host says which there are.
func TestAccountThatComesBackAndChangesMeanwhile(t *testing.T) {
	t.Parallel()
	var many []sandbox.Collection
	for i := range 8 {
		many = append(many, sandbox.Collection{NSID: syntax.NSID(fmt.Sprintf("com.example.c%d", i)), Share: 1, MinRecords: 2, MaxRecords: 3})
	}
	r := newRig(t, sandbox.Config{Seed: 23, Repos: 1, Hosts: 1, Collections: many})
	did := r.world.Repos()[0].DID
	r.complete(jobs.Request{})
	r.must(r.world.Deactivate(did))
	r.complete(jobs.Request{})
	r.must(r.world.Activate(did))
	var once sync.Once
	r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
		if q.Method == describeRepo {
			once.Do(func() {
				_, err := r.world.Create(did, many[0].NSID, "", map[string]any{"$type": string(many[0].NSID)})
				r.must(err)
			})
		}
		return sandbox.Fault{}
	})
	r.world.ResetRequests()
	r.complete(jobs.Request{})
	if got, want := r.asked(did), (asked{probes: 2, descriptions: 1, wholes: 1}); got != want {
		t.Errorf("its host was asked %+v, want %+v", got, want)
	}
	r.wantTruth("")
}

// TestAccountThatComesBackElsewhereAtTheSameRev has an account come back at a host whose
// short pages are not the end, while at the host before they are.
func TestAccountThatComesBackElsewhereAtTheSameRev(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.Config{Seed: 31, Repos: 6, Hosts: 2, Collections: statuses(3, 3)})
	to := r.world.HostURLs()[1]
	var did, strange syntax.DID
	for _, repo := range r.world.Repos() {
		if repo.Host == to {
			strange = repo.DID
		} else {
			did = repo.DID
		}
	}
	r.complete(jobs.Request{DID: did, Collection: status})
	repo, err := r.store.Index.Repo(t.Context(), did)
	r.must(err)
	r.must(r.world.Deactivate(did))
	r.complete(jobs.Request{DID: did, Collection: status})
	r.world.Assign(strange, zoo.ShortPages(1, 0))
	r.complete(jobs.Request{DID: strange, Collection: status})
	if known, err := r.store.Work.Distrusted(t.Context(), to); err != nil || !known {
		t.Fatalf("%s is distrusted: %t, %v", to, known, err)
	}
	r.must(errors.Join(r.world.Activate(did), r.world.Move(did, to)))
	// The sandbox gives a repo that moves another rev.
	r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
		if q.Method != repoStatus || q.DID != did.String() {
			return sandbox.Fault{}
		}
		return says("the same rev", fmt.Sprintf(`{"did":%q,"active":true,"rev":%q}`, did, repo.Floor))
	})
	r.complete(jobs.Request{DID: did, Collection: status})
	for uri := range r.world.TruthOf(did, status) {
		if _, ok := r.served(status)[uri]; !ok {
			t.Errorf("%s is not served", uri)
		}
	}
}

// TestRepoThatLosesRecordsWhileItIsReadIsReadWhenItComesBack has an administrator delete
// what the first steps of a reading brought.
func TestRepoThatLosesRecordsWhileItIsReadIsReadWhenItComesBack(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.Config{Seed: 22, Repos: 1, Hosts: 1, Collections: statuses(2000, 2000)})
	did := r.world.Repos()[0].DID
	job := r.stopInTheMiddle(jobs.Request{Collection: status}, status)
	n, err := r.store.Collections.DeleteRecords(t.Context(), index.Filter{Collection: status})
	if err != nil || n < 1000 {
		t.Fatalf("%d records deleted, %v", n, err)
	}
	r.run(options{})
	r.finish(job)
	r.must(r.world.Deactivate(did))
	r.complete(jobs.Request{Collection: status})
	r.must(r.world.Activate(did))
	r.complete(jobs.Request{Collection: status})
	r.wantTruth(status)
}

// TestHostIsNotAskedAgainAndAgainWhileADeletionGoesOn has a long deletion take what a job
// has kept, while the job goes on with the same repo in steps.
func TestHostIsNotAskedAgainAndAgainWhileADeletionGoesOn(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	r := newRigWith(t, sandbox.Config{Seed: 22, Repos: 2, Hosts: 1, Collections: []sandbox.Collection{
		{NSID: status, Share: 1, MinRecords: 3, MaxRecords: 3}, {NSID: notes, Share: 1, MinRecords: 1, MaxRecords: 1},
	}}, options{store: store.Config{Hooks: store.Hooks{Step: 2}}})
	did, other := r.world.Repos()[0].DID, r.world.Repos()[1].DID
	r.grow(did, notes, 2000)
	r.grow(other, status, 1500) // they are deleted two at a time, before those of did
	listOnly(r.world, nil)
	for _, one := range []syntax.DID{other, did} {
		r.complete(jobs.Request{Collection: status, DID: one})
	}
	r.must(r.world.Deactivate(did))
	r.complete(jobs.Request{Collection: status, DID: did})
	r.must(r.world.Activate(did))
	r.must(errors.Join(r.store.Collections.Track(t.Context(), status), r.store.Collections.Track(t.Context(), notes)))
	job := r.stopInTheMiddle(jobs.Request{DID: did}, notes)
	r.world.ResetRequests()
	before, done := r.seq(), make(chan error, 1)
	go func() {
		_, err := r.store.Collections.DeleteRecords(t.Context(), index.Filter{Collection: status})
		done <- err
	}()
	for tick := time.Tick(time.Millisecond); r.seq() == before; <-tick {
		if t.Context().Err() != nil {
			t.Fatal("the deletion does not begin")
		}
	}
	r.run(options{})
	r.finish(job)
	r.must(<-done)
	if got := r.asked(did); got.probes > 3 || got.listings > 30 {
		t.Errorf("its host was asked %+v", got)
	}
	held := r.world.TruthOf(did)
	for uri := range r.served("") {
		delete(held, uri)
	}
	if len(held) > 0 {
		t.Errorf("%d records of the repo are not served", len(held))
	}
}
