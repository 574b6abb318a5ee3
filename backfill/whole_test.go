package backfill_test

import (
	"net/http"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/sandbox"
	"appview/internal/sandbox/zoo"
	"appview/store/jobs"
)

func TestWholeNetworkIsReadInOneRequestARepo(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.Config{Seed: 60, Repos: 80, Hosts: 4, LargeRepos: 1})
	job := r.complete(jobs.Request{})
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
	again := r.complete(jobs.Request{})
	if again.Tally.Unchanged() != job.Tally.Records {
		t.Errorf("the second job changed something: %+v", again.Tally)
	}
}

// TestFullNetworkChecksEverySignature reads a network in which some repos are signed
// with a key that is not the account's, and some have no key at all: of these nothing
// is stored, and everything else is as it is in the network.
func TestFullNetworkChecksEverySignature(t *testing.T) {
	t.Parallel()
	for name, track := range map[string]bool{"everything": false, "many tracked collections": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			world := sandbox.Config{Seed: 63, Repos: 60, Hosts: 3, LargeRepos: 1}
			if track {
				world.Collections = append(sandbox.DefaultCollections(), sandbox.Collection{NSID: "com.example.fourth", Share: 0.5, MinRecords: 1, MaxRecords: 3})
			}
			r := newRig(t, world)
			if track {
				for _, c := range world.Collections {
					if err := r.store.Collections.Track(t.Context(), c.NSID); err != nil {
						t.Fatal(err)
					}
				}
			}
			forged := map[syntax.DID]bool{}
			for i, repo := range r.world.Repos() {
				switch i % 8 {
				case 3:
					r.world.Assign(repo.DID, zoo.WrongKey())
				case 5:
					r.world.Assign(repo.DID, zoo.NoKey())
				default:
					continue
				}
				forged[repo.DID] = true
			}
			job := r.complete(jobs.Request{})
			want := map[string]string{}
			for uri, rec := range r.world.Truth() {
				if !forged[rec.DID] {
					want[uri] = rec.CID + " " + canonical(t, rec.Value)
				}
			}
			differ(t, r.served(""), want)
			if r.world.Faults("wrong key") == 0 || r.world.Faults("no key") == 0 {
				t.Error("nothing was forged")
			}
			found := int64(0)
			for did := range forged {
				if track && len(r.world.TruthOf(did)) == 0 {
					continue // no listing names it
				}
				found++
				if repo := r.repo(job, did); repo.Class != jobs.ClassFailed || repo.Reason != "bad_signature" {
					t.Errorf("%s ended %s %s", did, repo.Class, repo.Reason)
				}
			}
			if job.Reasons["bad_signature"] != found || job.Failed != found {
				t.Errorf("%d repos are forged: %+v", found, job)
			}
			// Not in another way either: no page of them was listed.
			for _, q := range r.world.Requests(func(q sandbox.Request) bool { return q.Method == listRecords && forged[syntax.DID(q.DID)] }) {
				t.Errorf("listed: %+v", q)
			}
		})
	}
}

func TestLongListingIsReadInOnePieceInstead(t *testing.T) {
	t.Parallel()
	r := newRig(t, sandbox.Config{Seed: 61, Repos: 3, Hosts: 1, LargeRepos: 1})
	job := r.complete(jobs.Request{Collection: status})
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
		"unknown": {Name: "x", Status: http.StatusBadRequest, Body: []byte(`{"error":"RepoNotFound","message":"Could not find repo"}`)},
		"nonsense": {
			Name: "x", Status: http.StatusOK, Header: http.Header{"Content-Type": {"application/vnd.ipld.car"}}, Body: []byte("no CAR"),
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, sandbox.Config{Seed: 62, Repos: 12, Hosts: 2, LargeRepos: 1})
			r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
				if q.Method == getRepo {
					return fault
				}
				return sandbox.Fault{}
			})
			job := r.complete(jobs.Request{})
			r.wantTruth("")
			if r.world.Faults("x") == 0 || job.Failed > 0 {
				t.Errorf("after %d faults: %+v", r.world.Faults("x"), job)
			}
		})
	}
}
