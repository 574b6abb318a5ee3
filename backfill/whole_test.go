package backfill_test

import (
	"net/http"
	"testing"

	"appview/sandbox"
	"appview/store"
)

func TestWholeNetworkIsReadInOneRequestARepo(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.Config{Seed: 60, Repos: 80, Hosts: 4, Whales: 1})
	job := r.complete(store.Request{})
	r.wantTruth("")
	if got := job.Reasons["exact"] + job.Reasons["empty"]; got != job.TotalRepos || job.TotalRepos != 80 {
		t.Errorf("job: %+v", job)
	}
	if n := r.world.Count(sandbox.PartPDS, listRecords); n != 0 {
		t.Errorf("%d pages were listed", n)
	}
	if n := r.world.Count(sandbox.PartPDS, getRepo); n != 80 {
		t.Errorf("%d repos were fetched, of 80", n)
	}
	again := r.complete(store.Request{})
	if again.Tally.Unchanged() != job.Tally.Records {
		t.Errorf("the second job changed something: %+v", again.Tally)
	}
}

func TestLongListingIsReadInOnePieceInstead(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.Config{Seed: 61, Repos: 3, Hosts: 1, Whales: 1})
	job := r.complete(store.Request{Collection: status})
	r.wantTruth(status)
	if n := r.world.Count(sandbox.PartPDS, getRepo); n != 1 || job.Failed > 0 {
		t.Errorf("%d repos were fetched: %+v", n, job)
	}
}

func TestRepoThatCannotBeFetchedIsListed(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]sandbox.Fault{
		"sick":    {Name: "x", Status: http.StatusInternalServerError, Body: []byte(`{"error":"InternalServerError"}`)},
		"missing": {Name: "x", Status: http.StatusNotImplemented, Body: []byte(`{"error":"MethodNotImplemented"}`)},
		"cut":     {Name: "x", Cut: true, CutAfter: 700},
		"nonsense": {
			Name: "x", Status: http.StatusOK, Header: http.Header{"Content-Type": {"application/vnd.ipld.car"}}, Body: []byte("no CAR"),
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, sandbox.Config{Seed: 62, Repos: 12, Hosts: 2, Whales: 1})
			r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
				if q.Method == getRepo {
					return fault
				}
				return sandbox.Fault{}
			})
			job := r.complete(store.Request{})
			r.wantTruth("")
			if r.world.Faults("x") == 0 || job.Failed > 0 {
				t.Errorf("after %d faults: %+v", r.world.Faults("x"), job)
			}
		})
	}
}
