package backfill_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"testing"
	"time"

	"appview/backfill"
	"appview/internal/api"
	"appview/internal/sandbox"
	"appview/store/jobs"
	"appview/store/storetest"
)

// TestSlowHostsDoNotKeepThePlacesOfOthers has more hosts that never come to an end
// than may be read from at once.
func TestSlowHostsDoNotKeepThePlacesOfOthers(t *testing.T) {
	t.Parallel()
	o := options{config: backfill.Config{MaxHosts: 2, Turn: 200 * time.Millisecond}}
	r := newRigWith(t, sandbox.Config{Seed: 110, Repos: 80, Hosts: 8, Collections: statuses(1, 2)}, o)
	slow := map[string]bool{}
	for _, host := range r.world.HostURLs()[:4] {
		slow[host] = true
	}
	r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
		return sandbox.Fault{Hang: slow[q.Host] && q.Method == listRecords}
	})
	job := r.create(jobs.Request{Collection: status})
	r.await(job, "done but for the slow hosts", func(j jobs.Job) bool { return j.Discovered && j.Processed == 40 })
	if r.world.Faults("hang") == 0 {
		t.Error("no request hung")
	}
	if waiting, _, _ := r.b.Progress(r.job(job)); waiting != "" {
		t.Errorf("the job waits for %q", waiting)
	}
	if _, err := r.b.Move(t.Context(), job.ID, api.StatusCancelling); err != nil {
		t.Fatal(err)
	}
	r.finish(job)
	// Every place was given back, those of the late ones too.
	r.world.SetFault(nil)
	r.complete(jobs.Request{Collection: status})
	r.wantTruth(status)
}

// TestRepoThatTakesForEverIsTooLarge has a host that gives a few records each
// time, as slowly as nobody would call dead, and begins anew after each restart.
func TestRepoThatTakesForEverIsTooLarge(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprintf("restart %t", restart), func(t *testing.T) {
			t.Parallel()
			o := options{config: backfill.Config{Reading: 3 * time.Second}}
			r := newRigWith(t, sandbox.Config{Seed: 111, Repos: 2, Hosts: 2, Collections: statuses(3000, 3000)}, o)
			slow := r.world.HostURLs()[0]
			listOnly(r.world, func(q sandbox.Request) sandbox.Fault {
				if q.Host == slow && q.Method == listRecords {
					return sandbox.Fault{Delay: 400 * time.Millisecond}
				}
				return sandbox.Fault{}
			})
			job := r.create(jobs.Request{Collection: status})
			if restart { // time that was spent stays spent
				r.await(job, "under way", func(jobs.Job) bool { return len(r.served(status)) >= 3500 })
				r.stop()
				o.config.Reading = 2500 * time.Millisecond // what is left of it is not enough
				r.run(o)
			}
			job = r.finish(job)
			if job.Reasons["exact"] != 1 || job.Reasons["too_large"] != 1 || r.world.Faults("delay") == 0 {
				t.Errorf("job: %+v", job)
			}
		})
	}
}

// TestRepoThatFailsForEverIsTooLarge has a host that takes its time and then breaks its
// answer, before anything of the repo could be stored. Every request takes a known time
// of the reading at least, so their number shows that the time was counted.
func TestRepoThatFailsForEverIsTooLarge(t *testing.T) {
	t.Parallel()
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprintf("restart %t", restart), func(t *testing.T) {
			t.Parallel()
			const reading, delay = slower * 2 * time.Second, 300 * time.Millisecond
			o := options{config: backfill.Config{Reading: reading, Attempts: 1000, Retry: 10 * time.Millisecond}}
			r := newRigWith(t, sandbox.Config{Seed: 113, Repos: 1, Hosts: 1, Collections: statuses(300, 300)}, o)
			listOnly(r.world, func(q sandbox.Request) sandbox.Fault {
				if q.Method != listRecords {
					return sandbox.Fault{}
				}
				return sandbox.Fault{Delay: delay, Cut: q.Cursor != "", CutAfter: 100}
			})
			job := r.create(jobs.Request{Collection: status})
			if restart { // time that was spent stays spent
				r.await(job, "tried twice", func(j jobs.Job) bool { return j.TotalRepos == 1 && r.repo(j, r.world.Repos()[0].DID).Attempts >= 2 })
				r.stop()
				r.run(o)
			}
			if job = r.finish(job); job.Reasons["too_large"] != 1 {
				t.Errorf("job: %+v", job)
			}
			// One more is cut short at the end, and the two of an attempt that a stop has cut off
			// are not counted.
			if n := r.world.Count(sandbox.PartPDS, listRecords); n > int64(reading/delay)+3 {
				t.Errorf("%d pages were asked for, of %s each, in a reading of %s", n, delay, reading)
			}
		})
	}
}

// TestSlowDocumentsHoldUpNoOtherLookUp has DIDs whose documents are on hosts of
// their own that never answer, more of them than are looked up at once, and found
// before all others.
func TestSlowDocumentsHoldUpNoOtherLookUp(t *testing.T) {
	t.Parallel()
	hung := make(chan struct{}, 1000)
	o := options{}
	o.network.Timing.Connect = time.Hour
	o.network.Resolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		hung <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	r := newRigWith(t, sandbox.Config{Seed: 112, Repos: 40, Hosts: 2, Collections: statuses(1, 2)}, o)
	listing := func(dids []string, cursor string) string {
		page := map[string]any{"repos": []any{}}
		var repos []any
		for _, did := range dids {
			repos = append(repos, map[string]string{"did": did})
		}
		page["repos"] = repos
		if cursor != "" {
			page["cursor"] = cursor
		}
		b, err := json.Marshal(page)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	var web, plc []string
	for i := range 300 {
		web = append(web, fmt.Sprintf("did:web:h%d.slow.example.com", i))
	}
	for _, repo := range r.world.Repos() {
		plc = append(plc, repo.DID.String())
	}
	first, last := listing(web, "next"), listing(plc, "")
	let := make(chan struct{})
	r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
		switch {
		case q.Method != byCollection:
			return sandbox.Fault{}
		case q.Cursor == "":
			return says("web", first)
		}
		<-let
		return says("plc", last)
	})
	job := r.create(jobs.Request{Collection: status})
	for range 64 {
		<-hung
	}
	close(let)
	r.await(job, "done but for the documents", func(j jobs.Job) bool { return j.Discovered && j.Processed == 40 })
	if _, err := r.b.Move(t.Context(), job.ID, api.StatusCancelling); err != nil {
		t.Fatal(err)
	}
	r.finish(job)
	r.wantTruth(status)
}
