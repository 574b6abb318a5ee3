package backfill_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"appview/backfill"
	"appview/internal/api"
	"appview/internal/network"
	"appview/internal/sandbox"
	"appview/internal/sandbox/zoo"
	"appview/store/jobs"
	"appview/store/storetest"
)

// silence is what hosts may be silent for in these tests.
const silence = slower * time.Second

// silentRig is a rig whose hosts are given up soon.
func silentRig(t *testing.T, world sandbox.Config, change func(*options)) *rig {
	t.Helper()
	o := options{config: backfill.Config{Silence: silence, Retry: 300 * time.Millisecond}}
	o.network.Timing = network.Timing{Probe: 50 * time.Millisecond, MaxProbe: 100 * time.Millisecond, BodyIdle: silence * 6 / 10}
	if change != nil {
		change(&o)
	}
	return newRigWith(t, world, o)
}

// at is a fault for the requests to one host.
func at(host string, fault func(sandbox.Request) sandbox.Fault) func(sandbox.Request) sandbox.Fault {
	return func(q sandbox.Request) sandbox.Fault {
		if q.Host != host {
			return sandbox.Fault{}
		}
		return fault(q)
	}
}

func hang(sandbox.Request) sandbox.Fault { return sandbox.Fault{Hang: true} }

// wantGiven wants so many repos to be exact, and so many to be given up.
func wantGiven(tb testing.TB, job jobs.Job, exact, up int64) {
	tb.Helper()
	if job.Status != api.StatusCompleted || job.Reasons["exact"] != exact || job.Reasons["host_down"]+job.Reasons["timeout"] != up || job.Failed != up {
		tb.Errorf("want %d exact and %d given up: %+v", exact, up, job)
	}
}

// TestHostsThatGiveNothingDoNotHoldAJob has hosts that stall and hosts that drip
// beside healthy ones: the job ends soon after these, and what is given up says so.
func TestHostsThatGiveNothingDoNotHoldAJob(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	html := http.Header{"Content-Type": {"text/html"}}
	for name, sick := range map[string]func(q sandbox.Request) sandbox.Fault{
		"silent":          hang,
		"20 bytes/s":      func(sandbox.Request) sandbox.Fault { return sandbox.Fault{Drip: 50 * time.Millisecond} },
		"under the rate":  func(sandbox.Request) sandbox.Fault { return sandbox.Fault{Rate: 200} },
		"only the status": func(q sandbox.Request) sandbox.Fault { return sandbox.Fault{Hang: q.Method != repoStatus} },
		"only page one":   func(q sandbox.Request) sandbox.Fault { return sandbox.Fault{Hang: q.Cursor != ""} },
		"bad gateway": func(sandbox.Request) sandbox.Fault {
			return sandbox.Fault{Status: http.StatusBadGateway, Header: html, Body: []byte("<html>")}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := silentRig(t, sandbox.Config{Seed: 160, Repos: 80, Hosts: 8, Collections: statuses(101, 110)}, nil)
			bad := r.world.HostURLs()[1]
			r.world.SetFault(at(bad, sick))
			job := r.create(jobs.Request{Collection: status})
			r.await(job, "done but for one host", func(j jobs.Job) bool { return j.Processed >= 70 })
			healthy := time.Now()
			job = r.finish(job)
			if took := time.Since(healthy); took > silence+slower*time.Second {
				t.Errorf("it ended %s after the healthy hosts", took)
			}
			wantGiven(t, job, 70, 10)
			for _, repo := range r.world.Repos() {
				if got := r.repo(job, repo.DID); repo.Host == bad && !strings.Contains(got.Detail, "nothing was got for "+silence.String()) && !strings.Contains(got.Detail, "HTTP 502") {
					t.Errorf("%s: %+v", repo.DID, got)
				}
			}
			r.world.SetFault(nil)
			r.stop()
			r.run(options{}) // which holds nothing against the host
			job, err := r.b.Retry(t.Context(), job.ID)
			if err != nil {
				t.Fatal(err)
			}
			if job = r.finish(job); job.Failed != 0 || job.Reasons["exact"] != 10 {
				t.Errorf("retry: %+v", job)
			}
			r.wantTruth(status)
		})
	}
}

// TestHostThatGivesSomethingInTimeIsNotSilent has a host that is silent for almost
// too long, one that gets on with one repo only, and one that is slow and steady.
func TestHostThatGivesSomethingInTimeIsNotSilent(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	whole := func(q sandbox.Request) bool { return q.Method == getRepo }
	var began atomic.Int64
	for name, c := range map[string]struct {
		records int
		fault   func(r *rig, q sandbox.Request) sandbox.Fault
		ends    func(r *rig, job jobs.Job)
	}{
		"back in the last moment": {3, func(*rig, sandbox.Request) sandbox.Fault {
			began.CompareAndSwap(0, time.Now().UnixNano())
			return sandbox.Fault{Hang: time.Since(time.Unix(0, began.Load())) < silence/2}
		}, nil},
		"one repo of many": {1500, func(r *rig, q sandbox.Request) sandbox.Fault {
			if whole(q) {
				return sandbox.Fault{Status: http.StatusNotImplemented, Body: []byte(`{"error":"MethodNotImplemented"}`), Header: http.Header{"Content-Type": {"application/json"}}}
			}
			if q.DID == firstDID(r.world) {
				return sandbox.Fault{Delay: silence / 8}
			}
			return sandbox.Fault{Hang: true}
		}, func(r *rig, job jobs.Job) { wantGiven(r.t, job, 1, 3) }},
		"slow and steady pages": {90, func(*rig, sandbox.Request) sandbox.Fault {
			return sandbox.Fault{Rate: 8 << 10} // a page takes more than twice the silence
		}, nil},
		"slow and steady repo": {600, func(_ *rig, q sandbox.Request) sandbox.Fault {
			if whole(q) {
				return sandbox.Fault{Rate: 40 << 10}
			}
			return sandbox.Fault{Hang: q.Cursor != ""}
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			held := statuses(c.records, c.records)
			if strings.Contains(name, "pages") {
				held[0].RecordBytes = slower * 220 // to take longer than the silence, also where that is longer
			}
			r := silentRig(t, sandbox.Config{Seed: 161, Repos: 4, Hosts: 1, Collections: held}, func(o *options) {
				o.network.Timing.Connect, o.network.Timing.TLS, o.network.Timing.Header = silence/20, silence/20, silence/5
			})
			r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
				if q.Part != sandbox.PartPDS {
					return sandbox.Fault{}
				}
				return c.fault(r, q)
			})
			start := time.Now()
			job := r.create(jobs.Request{Collection: status})
			if strings.Contains(name, "repo") && !strings.Contains(name, "many") {
				job = r.finish(r.create(jobs.Request{}))
			}
			job = r.finish(job)
			if took := time.Since(start); took < silence && c.records > 3 {
				t.Errorf("it took %s only", took)
			}
			if c.ends == nil {
				wantGiven(t, job, 4, 0)
				r.wantTruth(status)
			} else {
				c.ends(r, job)
			}
		})
	}
}

// TestSilenceThatIsNotTheHostsDoesNotCount has the host ask for pauses, the directory
// be away, the job be paused, and places be taken, each for longer than a host may be
// silent.
func TestSilenceThatIsNotTheHostsDoesNotCount(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	long := 2 * silence
	world := sandbox.Config{Seed: 162, Repos: 12, Hosts: 2, Collections: statuses(1, 2)}
	limited := sandbox.Fault{Name: "limited", Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {fmt.Sprint(long.Seconds())}}}
	t.Run("asked to wait", func(t *testing.T) {
		t.Parallel()
		r := silentRig(t, world, nil)
		var n atomic.Int64
		r.world.SetFault(at(r.world.HostURLs()[0], func(sandbox.Request) sandbox.Fault {
			if n.Add(1) != 3 {
				return sandbox.Fault{}
			}
			return limited
		}))
		wantGiven(t, r.complete(jobs.Request{Collection: status}), 12, 0)
	})
	t.Run("asked to wait by whom it led to", func(t *testing.T) {
		t.Parallel()
		r := silentRig(t, world, nil)
		from, to := r.world.HostURLs()[0], r.world.HostURLs()[1]
		lives := map[string]bool{} // at the first
		for _, repo := range r.world.Repos() {
			lives[string(repo.DID)] = repo.Host == from
		}
		var led atomic.Int64
		r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
			switch {
			case q.Host == from && q.Method == getRepo && led.Load() < 6:
				led.Add(1)
				return sandbox.Fault{Name: "led", Status: http.StatusFound, Header: http.Header{"Location": {to + "/xrpc/" + getRepo + "?did=" + q.DID}}}
			case q.Host == to && lives[q.DID]:
				return limited
			}
			return sandbox.Fault{}
		})
		wantGiven(t, r.complete(jobs.Request{}), 12, 0)
		if r.world.Faults("led") == 0 || r.world.Faults("limited") == 0 {
			t.Error("nobody was led to a host that asked to wait")
		}
	})
	t.Run("the directory", func(t *testing.T) {
		t.Parallel()
		r := silentRig(t, world, nil)
		away := r.world.HostURLs()[0]
		r.world.SetFault(at(away, hang))
		job := r.create(jobs.Request{Collection: status})
		r.await(job, "read at one host", func(j jobs.Job) bool { return j.Processed == 6 })
		for _, repo := range r.world.Repos() {
			if repo.Host == away {
				if err := r.world.Move(repo.DID, r.world.HostURLs()[1]); err != nil {
					t.Fatal(err)
				}
			}
		}
		r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
			if q.Part == sandbox.PartPLC {
				return limited
			}
			return sandbox.Fault{Hang: q.Host == away}
		})
		<-time.NewTimer(long).C
		if job := r.job(job); job.Status != api.StatusRunning || job.Processed != 6 || r.world.Faults("limited") == 0 {
			t.Errorf("while the directory was away: %+v", job)
		}
		r.world.SetFault(at(away, hang))
		wantGiven(t, r.finish(job), 12, 0)
	})
	t.Run("a pause", func(t *testing.T) {
		t.Parallel()
		r := silentRig(t, world, nil)
		r.world.SetFault(at(r.world.HostURLs()[0], hang))
		job := r.create(jobs.Request{Collection: status})
		r.await(job, "read at one host", func(j jobs.Job) bool { return j.Processed == 6 })
		if _, err := r.b.Move(t.Context(), job.ID, api.StatusPausing); err != nil {
			t.Fatal(err)
		}
		<-time.NewTimer(long).C
		if _, err := r.b.Move(t.Context(), job.ID, api.StatusRunning); err != nil {
			t.Fatal(err)
		}
		r.world.SetFault(nil)
		wantGiven(t, r.finish(job), 12, 0)
	})
	t.Run("no place", func(t *testing.T) {
		t.Parallel()
		r := silentRig(t, sandbox.Config{Seed: 163, Repos: 48, Hosts: 12, Collections: statuses(1, 2)}, func(o *options) {
			o.config.MaxHosts, o.config.Turn = 1, silence/10
		})
		healthy := r.world.HostURLs()[11]
		r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
			return sandbox.Fault{Hang: q.Part == sandbox.PartPDS && q.Host != healthy}
		})
		wantGiven(t, r.complete(jobs.Request{Collection: status}), 4, 44)
	})
}

// TestConfirmationIsASignOfHealth has a host list in no order of keys, and take a while to
// say of each record that was not listed that it is gone: of all of them, for longer than a
// host may be silent.
func TestConfirmationIsASignOfHealth(t *testing.T) {
	t.Parallel()
	r := silentRig(t, sandbox.Config{Seed: 168, Repos: 1, Hosts: 1, Collections: statuses(350, 350)}, nil)
	listOnly(r.world, nil)
	did := r.world.Repos()[0].DID
	r.complete(jobs.Request{Collection: status})
	deleted := r.remove(did, func(i int) bool { return i%25 == 12 })
	r.world.Assign(did, zoo.CreationOrder(100))
	listOnly(r.world, func(q sandbox.Request) sandbox.Fault {
		if q.Method != getRecord {
			return sandbox.Fault{}
		}
		return sandbox.Fault{Delay: silence / 5}
	})
	wantGiven(t, r.finish(r.create(jobs.Request{Collection: status})), 1, 0)
	r.wantTruth(status)
	if n := r.world.Faults("delay"); n != deleted || n < 10 {
		t.Errorf("%d records were asked for, %d are deleted", n, deleted)
	}
}

// TestJobsThatShareAHost has one job read a long repo of a host, as slowly as may be,
// while another waits for it, and a third for another repo, which the host does not give
// so soon.
func TestJobsThatShareAHost(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	r := silentRig(t, sandbox.Config{Seed: 164, Repos: 2, Hosts: 1, Collections: statuses(1200, 1200)}, func(o *options) {
		o.config.Attempts, o.config.Retry = 1000, 50*time.Millisecond
		o.network.Timing.Connect, o.network.Timing.TLS, o.network.Timing.Header = silence/20, silence/20, silence/5
	})
	long, late := r.world.Repos()[0].DID, r.world.Repos()[1].DID
	var free atomic.Bool
	listOnly(r.world, func(q sandbox.Request) sandbox.Fault {
		switch {
		case q.Part == sandbox.PartPDS && q.DID == string(late):
			return sandbox.Fault{Hang: !free.Load()}
		case q.Method == listRecords:
			return sandbox.Fault{Delay: silence / 7}
		}
		return sandbox.Fault{}
	})
	one := r.create(jobs.Request{Collection: status, DID: long})
	r.await(one, "under way", func(jobs.Job) bool { return r.world.Faults("delay") > 0 })
	two := r.create(jobs.Request{Collection: status, DID: long})
	three := r.create(jobs.Request{Collection: status, DID: late})
	wantGiven(t, r.finish(one), 1, 0)
	free.Store(true)
	wantGiven(t, r.finish(three), 1, 0)
	listOnly(r.world, nil)
	wantGiven(t, r.finish(two), 1, 0)
}

// TestWhoHasMovedFromASilentHostIsReadAtTheNewOne has repos move while their host is
// silent, or end.
func TestWhoHasMovedFromASilentHostIsReadAtTheNewOne(t *testing.T) {
	t.Parallel()
	r := silentRig(t, sandbox.Config{Seed: 165, Repos: 60, Hosts: 3, Collections: statuses(1, 2)}, nil)
	away := r.world.HostURLs()[0]
	r.world.SetFault(at(away, hang))
	job := r.create(jobs.Request{Collection: status})
	r.await(job, "read at two hosts", func(j jobs.Job) bool { return j.Processed == 40 })
	moved := 0
	for _, repo := range r.world.Repos() {
		var err error
		switch {
		case repo.Host != away:
		case moved < 7:
			moved++
			err = r.world.Move(repo.DID, r.world.HostURLs()[1+moved%2])
		case moved == 7:
			moved++
			err = r.world.Tombstone(repo.DID)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	job = r.finish(job)
	if job.Reasons["exact"] != 47 || job.Reasons["tombstoned"] != 1 || job.Reasons["timeout"]+job.Reasons["host_down"] != 12 {
		t.Errorf("job: %+v", job)
	}
}

// TestDocumentsOfASilentHostAreLookedAtAsFarAsThereIsTime has more repos than can be
// looked up in the time: 200 are, and the others only if one of these has moved.
func TestDocumentsOfASilentHostAreLookedAtAsFarAsThereIsTime(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	for _, moves := range []bool{false, true} {
		t.Run(fmt.Sprintf("moved %t", moves), func(t *testing.T) {
			t.Parallel()
			r := silentRig(t, sandbox.Config{Seed: 166, Repos: 400, Hosts: 2, Collections: statuses(1, 1)}, nil)
			away := r.world.HostURLs()[0]
			r.world.SetFault(at(away, hang))
			job := r.create(jobs.Request{Collection: status})
			r.await(job, "discovered", func(j jobs.Job) bool { return j.Discovered && j.Unresolved == 0 })
			r.stop()
			for _, repo := range r.world.Repos() {
				if moves && repo.Host == away {
					if err := r.world.Move(repo.DID, r.world.HostURLs()[1]); err != nil {
						t.Fatal(err)
					}
				}
			}
			before := r.world.Count(sandbox.PartPLC, "")
			o := options{config: backfill.Config{Silence: silence}}
			o.network.PLCRPS = 150 / silence.Seconds() // 150 in a silence: 200 do not fit
			r.run(o)
			job = r.finish(job)
			looked := r.world.Count(sandbox.PartPLC, "") - before
			if moves {
				wantGiven(t, job, 400, 0)
				return
			}
			wantGiven(t, job, 200, 200)
			if looked < 150 || looked > 230 {
				t.Errorf("%d documents were looked at", looked)
			}
		})
	}
}

// TestDocumentsThatAreNotGivenDoNotHoldAJob has DIDs whose documents are on hosts of
// their own, some of which never answer.
func TestDocumentsThatAreNotGivenDoNotHoldAJob(t *testing.T) {
	t.Parallel()
	r := silentRig(t, sandbox.Config{Seed: 167, Repos: 20, Hosts: 2, Collections: statuses(1, 2)}, func(o *options) {
		o.network.Timing.Connect, o.network.Timing.TLS, o.network.Timing.Header = time.Second, time.Second, time.Second
		o.config.Retry = time.Minute
		o.network.Resolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}}
	})
	var dids []string
	for i := range 90 {
		dids = append(dids, fmt.Sprintf(`{"did":"did:web:h%d.slow.example.com"}`, i))
	}
	r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
		if q.Method != byCollection {
			return sandbox.Fault{}
		}
		return says("web", `{"repos":[`+strings.Join(dids, ",")+`]}`)
	})
	start := time.Now()
	job := r.finish(r.create(jobs.Request{Collection: status}))
	if job.Reasons["did_lookup"] != 90 || job.Failed != 90 {
		t.Errorf("job: %+v", job)
	}
	if took := time.Since(start); took > slower*20*time.Second {
		t.Errorf("it took %s", took)
	}
}
