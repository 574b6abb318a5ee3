package backfill_test

import (
	"net/url"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/sandbox"
	"appview/store"
)

func TestDeniedReposAndHostsAreNeitherReadNorStoredNorServed(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.Config{Seed: 80, Repos: 30, Hosts: 3, Collections: statuses(2, 2)})
	r.complete(store.Request{Collection: status})
	did := r.world.Repos()[0].DID
	host := r.world.HostURLs()[1]
	u, err := url.Parse(host)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range []string{did.String(), u.Host} {
		if err := r.store.Deny(t.Context(), entry, "asked for"); err != nil {
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
	job := r.complete(store.Request{Collection: status})
	if got := len(r.served(status)); got != want || job.Reasons["denied"] != 11 || job.Unavailable != 11 {
		t.Errorf("%d records served after another job, want %d: %+v", got, want, job)
	}
	for _, q := range r.world.Requests(nil) {
		if (q.Part == sandbox.PartPDS && denied[syntax.DID(q.DID)]) || q.DID == did.String() {
			t.Errorf("asked for a denied repo: %+v", q)
		}
	}
	for _, entry := range []string{did.String(), u.Host} {
		if err := r.store.Allow(t.Context(), entry); err != nil {
			t.Fatal(err)
		}
	}
	r.complete(store.Request{Collection: status})
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
	job := r.create(store.Request{Collection: status})
	<-reached
	if err := r.store.Deny(t.Context(), did.String(), ""); err != nil {
		t.Fatal(err)
	}
	close(let)
	if job = r.finish(job); job.Reasons["denied"] != 1 || len(r.served(status)) != 10 {
		t.Errorf("%d records served: %+v", len(r.served(status)), job)
	}
}
