package backfill_test

import (
	"maps"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/api"
	"appview/internal/sandbox"
	"appview/store/jobs"
	"appview/store/storetest"
)

func TestDeniedReposAndHostsAreNeitherReadNorStoredNorServed(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.Config{Seed: 80, Repos: 30, Hosts: 3, Collections: statuses(2, 2)})
	r.complete(jobs.Request{Collection: status})
	did := r.world.Repos()[0].DID
	host := r.world.HostURLs()[1]
	u, err := url.Parse(host)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range []string{did.String(), u.Host} {
		if err := r.store.Index.Deny(t.Context(), entry, "asked for"); err != nil {
			t.Fatal(err)
		}
	}
	want := 0
	denied := map[syntax.DID]bool{}
	for _, repo := range r.world.Repos() {
		if denied[repo.DID] = repo.DID == did || repo.Host == host; !denied[repo.DID] {
			want += len(r.world.TruthOf(repo.DID))
		}
	}
	if got := len(r.served(status)); got != want {
		t.Errorf("%d records served after the denial, want %d", got, want)
	}
	r.world.ResetRequests()
	job := r.complete(jobs.Request{Collection: status})
	if got := len(r.served(status)); got != want || job.Reasons["denied"] != 11 || job.Unavailable != 11 {
		t.Errorf("%d records served after another job, want %d: %+v", got, want, job)
	}
	for _, q := range r.world.Requests(nil) {
		if (q.Part == sandbox.PartPDS && denied[syntax.DID(q.DID)]) || q.DID == did.String() {
			t.Errorf("asked for a denied repo: %+v", q)
		}
	}
	for _, entry := range []string{did.String(), u.Host} {
		if err := r.store.Index.Allow(t.Context(), entry); err != nil {
			t.Fatal(err)
		}
	}
	r.complete(jobs.Request{Collection: status})
	r.wantTruth(status)
}

func TestRepoDeniedWhileItIsReadIsNotStored(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.Config{Seed: 81, Repos: 6, Hosts: 1, Collections: statuses(2, 2)})
	did := r.world.Repos()[0].DID
	reached, let := make(chan struct{}), make(chan struct{})
	r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
		if q.Method == listRecords && q.DID == did.String() && q.Cursor == "" {
			close(reached)
			<-let
		}
		return sandbox.Fault{}
	})
	job := r.create(jobs.Request{Collection: status})
	<-reached
	if err := r.store.Index.Deny(t.Context(), did.String(), ""); err != nil {
		t.Fatal(err)
	}
	close(let)
	if job = r.finish(job); job.Reasons["denied"] != 1 || len(r.served(status)) != 10 {
		t.Errorf("%d records served: %+v", len(r.served(status)), job)
	}
}

// TestDenyingRacesWithAJob denies accounts and hosts while a job reads them, in
// steps and in one piece, and wants nothing of them to be left, whatever the job was
// doing with them at that moment; nor after another job and a restart.
func TestDenyingRacesWithAJob(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	r := newRig(t, sandbox.Config{Seed: 82, Repos: 120, Hosts: 6, LargeRepos: 6})
	repos := r.world.Repos()
	host := r.world.HostURLs()[2]
	name, err := url.Parse(host)
	if err != nil {
		t.Fatal(err)
	}
	entries := []string{name.Host}
	denied := map[syntax.DID]bool{}
	for i, repo := range repos {
		if denied[repo.DID] = repo.Host == host; i%5 == 0 {
			denied[repo.DID] = true
			entries = append(entries, repo.DID.String())
		}
	}
	var pages atomic.Int64
	let := make(chan struct{})
	r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
		if q.Part == sandbox.PartPDS && pages.Add(1) == 40 {
			close(let)
		}
		return sandbox.Fault{}
	})
	jobList := []jobs.Job{r.create(jobs.Request{}), r.create(jobs.Request{Collection: status})}
	<-let
	var denying sync.WaitGroup
	for _, entry := range entries {
		denying.Go(func() {
			if err := r.store.Index.Deny(t.Context(), entry, "race"); err != nil {
				t.Error(err)
			}
		})
	}
	denying.Wait()
	for _, job := range jobList {
		if job = r.finish(job); job.Status != api.StatusCompleted || job.Failed > 0 {
			t.Errorf("job: %+v", job)
		}
	}
	wantAllowed := func(when string) {
		t.Helper()
		want := map[string]string{}
		for uri, rec := range r.world.Truth() {
			if !denied[rec.DID] {
				want[uri] = rec.CID + " " + canonical(t, rec.Value)
			}
		}
		if got := r.served(""); !maps.Equal(got, want) {
			t.Errorf("%s:", when)
			differ(t, got, want)
		}
	}
	wantAllowed("after the race")
	r.stop()
	r.run(options{})
	r.world.ResetRequests()
	r.complete(jobs.Request{})
	wantAllowed("after a restart and another job")
	for _, q := range r.world.Requests(func(q sandbox.Request) bool { return q.Part == sandbox.PartPDS && denied[syntax.DID(q.DID)] }) {
		t.Errorf("asked for a denied repo: %+v", q)
	}
	for _, entry := range entries {
		if err := r.store.Index.Allow(t.Context(), entry); err != nil {
			t.Fatal(err)
		}
	}
	r.complete(jobs.Request{})
	r.wantTruth("")
}

// TestWhatIsDeniedByMistakeIsReadAnew denies the account of a repo of which a paused
// job has read some, and takes that back before the job goes on: what it had read is
// deleted.
func TestWhatIsDeniedByMistakeIsReadAnew(t *testing.T) {
	t.Parallel()
	r := newRigWith(t, sandbox.Config{Seed: 83, Repos: 1, Hosts: 1, Collections: statuses(1200, 1200)}, options{
		check: func(syntax.DID) bool { return true },
	})
	g := newGate()
	var pages atomic.Int64
	listOnly(r.world, func(q sandbox.Request) sandbox.Fault {
		if q.Method == listRecords && pages.Add(1) == 8 { // behind the first step
			g.wait()
		}
		return sandbox.Fault{}
	})
	job := r.create(jobs.Request{Collection: status})
	g.arrival(t)
	r.pause(job)
	close(g.opened)
	if n := len(r.served(status)); n == 0 || n == 1200 {
		t.Fatalf("%d records are stored when the job pauses", n)
	}
	entry := r.world.Repos()[0].DID.String()
	r.must(r.store.Index.Deny(t.Context(), entry, "by mistake"))
	r.must(r.store.Index.Allow(t.Context(), entry))
	r.ask(job, api.StatusRunning)
	if job = r.finish(job); job.Reasons["exact"] != 1 || job.Tally.Records != 1200 {
		t.Errorf("job: %+v", job)
	}
	r.wantTruth(status)
}
