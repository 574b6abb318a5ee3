package backfill_test

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/network"
	"appview/internal/network/polite"
	"appview/internal/sandbox"
	"appview/store/jobs"
	"appview/store/storetest"
)

// TestDirectoryThatIsDownWhileReposAreFetched has the directory go when every repo is
// looked up, and come back later. Whoever asks for the status of repos first has to ask it for each.
func TestDirectoryThatIsDownWhileReposAreFetched(t *testing.T) {
	t.Parallel()
	o := options{check: func(syntax.DID) bool { return true }}
	o.network.Timing.Probe, o.network.Timing.MaxProbe = time.Second, time.Second
	r := newRigWith(t, sandbox.Config{Seed: 110, Repos: 60, Hosts: 3, Collections: statuses(1, 2)}, o)
	var looked atomic.Int64
	var since atomic.Pointer[time.Time] // it is gone
	var probed atomic.Bool
	r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
		if q.Part != sandbox.PartPLC || looked.Add(1) <= 60 || probed.Load() {
			return sandbox.Fault{}
		}
		if now := time.Now(); !since.CompareAndSwap(nil, &now) {
			probed.Store(now.Sub(*since.Load()) > time.Second/2) // else it was on its way before
		}
		return sandbox.Fault{Name: "gone", Status: http.StatusBadGateway}
	})
	job := r.complete(jobs.Request{})
	r.wantTruth("")
	if job.Failed != 0 || !probed.Load() {
		t.Errorf("after %d faults: %+v", r.world.Faults("gone"), job)
	}
}

// TestNobodyIsBelievedWhileTheDirectoryIsAway moves a repo whose old host says of its
// pages that the account is deleted, in the moment in which nobody can be asked where
// it lives now.
func TestNobodyIsBelievedWhileTheDirectoryIsAway(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	r := newRig(t, sandbox.Config{Seed: 111, Repos: 1, Hosts: 2, Collections: statuses(5, 5)})
	r.complete(jobs.Request{Collection: status})
	did, urls := r.world.Repos()[0].DID, r.world.HostURLs()
	var once sync.Once
	var away atomic.Int64
	listOnly(r.world, func(q sandbox.Request) sandbox.Fault {
		switch {
		case q.Method == listRecords && q.Host == urls[0]:
			once.Do(func() { r.must(r.world.Move(did, urls[1])); away.Store(2) })
			f := says("deleted", `{"error":"RepoDeleted","message":"gone"}`)
			f.Status = http.StatusBadRequest
			return f
		case q.Part == sandbox.PartPLC && away.Add(-1) >= 0:
			return sandbox.Fault{Name: "away", Status: http.StatusInternalServerError}
		}
		return sandbox.Fault{}
	})
	job := r.complete(jobs.Request{Collection: status})
	r.wantTruth(status)
	if job.Reasons["exact"] != 1 || r.world.Faults("away") == 0 || r.world.Faults("deleted") == 0 {
		t.Errorf("job: %+v", job)
	}
}

// TestListingIsNotGivenUpForANightWithoutANetwork has the relay ask for patience just
// after our own network was gone for longer than any host is waited for.
func TestListingIsNotGivenUpForANightWithoutANetwork(t *testing.T) {
	t.Parallel()
	var clock atomic.Int64
	o := options{}
	o.config.Now = func() time.Time { return time.Unix(clock.Load(), 0) }
	r := newRigWith(t, sandbox.Config{Seed: 112, Repos: 1, Hosts: 1}, o)
	why := []string{polite.WhyNetwork, polite.WhyNetwork, polite.WhyRateLimited}
	page, err := r.b.RelayPage(t.Context(), func(context.Context, string) (network.ReposPage, error) {
		if len(why) == 0 {
			return network.ReposPage{DIDs: []syntax.DID{"did:plc:a"}}, nil
		}
		p := &network.Parked{Host: r.net.Relay(), Until: o.config.Now(), Why: why[0]}
		why = why[1:]
		clock.Add(int64(7 * time.Hour / time.Second))
		if len(why) == 0 {
			clock.Add(-int64(7 * time.Hour / time.Second))
		}
		return network.ReposPage{}, p
	})
	if err != nil || len(page.DIDs) != 1 {
		t.Errorf("page %+v, %v", page, err)
	}
}
