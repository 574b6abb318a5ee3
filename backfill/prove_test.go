package backfill_test

import (
	"fmt"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/backfill"
	"appview/internal/network"
	"appview/internal/sandbox"
	"appview/internal/sandbox/zoo"
	"appview/store/index"
	"appview/store/jobs"
	"appview/store/storetest"
)

const getProof = "com.atproto.sync.getRecord"

// noProofs has a host refuse to prove records, beside what hook says.
func noProofs(hook func(sandbox.Request) sandbox.Fault) func(sandbox.Request) sandbox.Fault {
	return func(q sandbox.Request) sandbox.Fault {
		if q.Method == getProof {
			return sandbox.Fault{Name: "no getRecord", Status: http.StatusNotImplemented, Body: []byte(`{"error":"MethodNotImplemented"}`)}
		}
		if hook == nil {
			return sandbox.Fault{}
		}
		return hook(q)
	}
}

// printed has listings print a value in other words.
func printed(words ...string) sandbox.Fault {
	return sandbox.Fault{Name: "other words", Rewrite: func(a sandbox.Answer) sandbox.Answer {
		a.Body = []byte(strings.NewReplacer(words...).Replace(string(a.Body)))
		return a
	}}
}

func listings(f sandbox.Fault) func(sandbox.Request) sandbox.Fault {
	return func(q sandbox.Request) sandbox.Fault {
		if q.Method == listRecords {
			return f
		}
		return sandbox.Fault{}
	}
}

// numbered is a rig with one repo of records as given, and of none else.
func numbered(t *testing.T, o options, values ...map[string]any) (*rig, syntax.DID) {
	t.Helper()
	r := newRigWith(t, sandbox.Config{Seed: 95, Repos: 1, Hosts: 1, Collections: statuses(1, 1)}, o)
	did := r.world.Repos()[0].DID
	if _, err := r.world.Empty(did); err != nil {
		t.Fatal(err)
	}
	for i, v := range values {
		if _, err := r.world.Create(did, status, syntax.RecordKey(fmt.Sprintf("key%04d", i)), v); err != nil {
			t.Fatal(err)
		}
	}
	return r, did
}

// records are what the index holds of the collection, by their keys.
func (r *rig) records() map[syntax.RecordKey]index.Record {
	r.t.Helper()
	all := map[syntax.RecordKey]index.Record{}
	err := r.store.Index.Export(r.t.Context(), index.Filter{Collection: status}, func(uint64) error { return nil }, func(rec *index.Record) error {
		one := *rec
		one.Body.Data = append([]byte(nil), rec.Body.Data...)
		all[rec.RKey] = one
		return nil
	})
	r.must(err)
	return all
}

func (r *rig) outcome(job jobs.Job, did syntax.DID) string {
	o := r.outcomes(job)[did]
	return o.Class + " " + o.Reason
}

func (r *rig) requested(method string) int {
	return len(r.world.Requests(func(q sandbox.Request) bool { return q.Method == method }))
}

// TestListedValueIsJudgedAsItsBlockIs lists values in the words of hosts that print them
// otherwise than they are, from hosts that give no repos and no proofs, no repos, or
// everything.
func TestListedValueIsJudgedAsItsBlockIs(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	many := map[string]any{}
	for i := range 12 {
		many[fmt.Sprintf("n%02d", i)] = float64(i) + 0.25
	}
	whole := []string{}
	for i := range 12 {
		whole = append(whole, fmt.Sprintf(`%d.25`, i), fmt.Sprint(i))
	}
	const rejected, exact = "failed rejected", "done exact"
	for _, c := range []struct {
		name                 string
		value                map[string]any
		words                []string
		alone, proofs, repos string // how the repo ends
		kept                 bool   // unverified, where it is listed alone
	}{
		{"1.0 as 1", map[string]any{"n": 1.0}, nil, exact, exact, exact, false},
		{"-0.0 as 0", map[string]any{"n": math.Copysign(0, -1)}, nil, exact, exact, exact, false},
		{"1e19 as an integer", map[string]any{"n": 1e19}, nil, exact, exact, exact, false},
		{"1e20 below zero, among others", map[string]any{"n": []any{-1e20, int64(3), 2.0, 0.5}}, nil, exact, exact, exact, false},
		{"fraction", map[string]any{"n": 51.507351}, nil, exact, exact, exact, false},
		{"rounded fraction", map[string]any{"n": 51.507351}, []string{"51.507351", "51.5"}, exact, exact, exact, true},
		{"fraction rounded to an integer", map[string]any{"n": 51.507351}, []string{"51.507351", "52"}, rejected, exact, exact, false},
		{"twelve fractions cut to integers", many, whole, exact, exact, exact, true},
		{"an integer past 2^63", map[string]any{"n": int64(5)}, []string{`"n":5`, `"n":9223372036854775808`}, rejected, exact, exact, false},
		{"an integer below -2^63", map[string]any{"n": int64(5)}, []string{`"n":5`, `"n":-9223372036854775809`}, rejected, exact, exact, false},
		{"another text", map[string]any{"t": "five"}, []string{"five", "six"}, rejected, rejected, exact, false},
		{"half a surrogate pair", map[string]any{"t": "five"}, []string{"five", `\ud83d`}, rejected, rejected, exact, false},
		{"half a pair for what it was encoded as", map[string]any{"t": "a\ufffd"}, []string{"\ufffd", `\ud83d`}, exact, exact, exact, false},
	} {
		for way, want := range map[string]string{"alone": c.alone, "proofs": c.proofs, "repos": c.repos} {
			t.Run(c.name+", "+way, func(t *testing.T) {
				t.Parallel()
				r, did := numbered(t, options{}, c.value)
				var hook func(sandbox.Request) sandbox.Fault
				if len(c.words) > 0 {
					hook = listings(printed(c.words...))
				}
				switch way {
				case "alone":
					listOnly(r.world, noProofs(hook))
				case "proofs":
					listOnly(r.world, hook)
				default:
					r.world.SetFault(noProofs(hook))
				}
				job := r.complete(jobs.Request{Collection: status})
				if got := r.outcome(job, did); got != want {
					t.Fatalf("the repo ended %q, want %q", got, want)
				}
				rec, there := r.records()["key0000"]
				switch kept := c.kept && (way == "alone" || c.name == "rounded fraction"); {
				case want == rejected && !there:
				case want == rejected || !there || rec.Body.Verified == kept:
					t.Errorf("the index holds %s, %q (there: %t)", rec.Provenance(), rec.Body.Data, there)
				case !kept && c.name != "-0.0 as 0": // whose sign the host does not print
					r.wantTruth(status)
				}
				seq := rec.Seq
				again := r.complete(jobs.Request{Collection: status})
				if rec = r.records()["key0000"]; rec.Seq != seq || again.Tally.Updated != 0 || again.Tally.Created != 0 {
					t.Errorf("the second job wrote it anew: %+v", again.Tally)
				}
			})
		}
	}
}

// TestWholeRepoAndListingByTurns has jobs read a repo whole and list it, by turns, from a
// host that rounds what it lists.
func TestWholeRepoAndListingByTurns(t *testing.T) {
	t.Parallel()
	r, did := numbered(t, options{}, map[string]any{"n": 51.507351}, map[string]any{"n": 7.75, "m": int64(2)}, map[string]any{"n": 2.5})
	hook := listings(printed("51.507351", "51.5", "7.75", "8", "2.5", "3"))
	var seqs map[syntax.RecordKey]uint64
	for i, whole := range []bool{true, false, true, false, false, true} {
		r.world.SetFault(hook)
		req := jobs.Request{}
		if !whole {
			req.Collection = status
			listOnly(r.world, noProofs(hook))
		}
		job := r.complete(req)
		if got := r.outcome(job, did); got != "done exact" {
			t.Errorf("job %d ended %s", i, got)
		}
		r.wantTruth(status)
		now := map[syntax.RecordKey]uint64{}
		for k, rec := range r.records() {
			if now[k] = rec.Seq; !rec.Body.Verified || rec.Source != index.SourceRepo {
				t.Errorf("job %d: %s of %s", i, rec.Provenance(), k)
			}
		}
		if seqs != nil && fmt.Sprint(now) != fmt.Sprint(seqs) {
			t.Errorf("job %d: changes %v after %v", i, now, seqs)
		}
		seqs = now
	}
}

// TestProofsAreBounded has more records in doubt than a host is asked to prove, in a repo
// that is read at once and in one that is read in steps.
func TestProofsAreBounded(t *testing.T) {
	t.Parallel()
	for _, n := range []int{fewRecords, 130, 700} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			var values []map[string]any
			for i := range n {
				values = append(values, map[string]any{"n": float64(i) + 0.25})
			}
			r, did := numbered(t, options{}, values...)
			listOnly(r.world, listings(printed(".25", "")))
			job := r.complete(jobs.Request{Collection: status})
			proved, want := 0, "done exact"
			for _, rec := range r.records() {
				if rec.Source == index.SourceProof && rec.Body.Verified {
					proved++
				}
			}
			if n > 100 {
				want = "failed rejected"
			}
			if got := r.outcome(job, did); got != want || proved != min(n, 100) || r.requested(getProof) != min(n, 100) {
				t.Errorf("ended %s, with %d proved by %d requests", got, proved, r.requested(getProof))
			}
			if job.Tally.Records != int64(proved) || job.Tally.Rejected != int64(n-proved) {
				t.Errorf("the tally is %+v", job.Tally)
			}
			// What is proved is not asked for again: the next hundred are.
			job = r.complete(jobs.Request{Collection: status})
			if got := r.requested(getProof); got != min(n, 200) || job.Tally.Records != int64(min(n, 200)) {
				t.Errorf("after the second job %d were asked for, the tally is %+v", got, job.Tally)
			}
		})
	}
}

// fewRecords are so few that a host is asked for each before it is asked for the repo.
const fewRecords = 10

// TestFewRecordsAreProvedWithoutTheRepo: a repo may be a thousand times as large.
func TestFewRecordsAreProvedWithoutTheRepo(t *testing.T) {
	t.Parallel()
	for n, repos := range map[int]int{1: 0, fewRecords: 0, fewRecords + 1: 1} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			var values []map[string]any
			for i := range n {
				values = append(values, map[string]any{"n": float64(i) + 0.25})
			}
			r, did := numbered(t, options{}, values...)
			r.world.SetFault(listings(printed(".25", "")))
			job := r.complete(jobs.Request{Collection: status})
			if got := r.outcome(job, did); got != "done exact" {
				t.Errorf("ended %s", got)
			}
			r.wantTruth(status)
			if got := r.requested(getRepo); got != repos || r.requested(getProof) != n*(1-repos) {
				t.Errorf("%d requests for the repo, %d for records", got, r.requested(getProof))
			}
		})
	}
}

// TestProofsOfHostsThatFail has hosts that fail to prove a record: for a while, always,
// by lies, or by a pause.
func TestProofsOfHostsThatFail(t *testing.T) {
	t.Parallel()
	const most = 5
	for _, c := range []struct {
		name  string
		fault func(n int) sandbox.Fault
		want  string
		asked int
	}{
		{"an error at first", func(n int) sandbox.Fault {
			if n > 1 {
				return sandbox.Fault{}
			}
			return sandbox.Fault{Name: "x", Status: 500}
		}, "done exact", 2},
		{"an error always", func(int) sandbox.Fault { return sandbox.Fault{Name: "x", Status: 500} }, "failed rejected", most},
		{"a pause at first", func(n int) sandbox.Fault {
			if n > 1 {
				return sandbox.Fault{}
			}
			return sandbox.Fault{Name: "x", Status: 429, Header: http.Header{"Retry-After": {"1"}}}
		}, "done exact", 2},
		{"not found", func(int) sandbox.Fault {
			return sandbox.Fault{Name: "x", Status: 400, Body: []byte(`{"error":"RecordNotFound"}`)}
		}, "failed rejected", 1},
		{"no such repo", func(int) sandbox.Fault {
			return sandbox.Fault{Name: "x", Status: 400, Body: []byte(`{"error":"RepoNotFound"}`)}
		}, "failed rejected", 1},
		{"no car", func(int) sandbox.Fault {
			return sandbox.Fault{Name: "x", Rewrite: func(a sandbox.Answer) sandbox.Answer { a.Body = []byte("{}"); return a }}
		}, "failed rejected", 1},
		{"taken down meanwhile", func(int) sandbox.Fault {
			return sandbox.Fault{Name: "x", Status: 400, Body: []byte(`{"error":"RepoTakendown"}`)}
		}, "unavailable taken_down", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			o := options{config: backfill.Config{Attempts: most, Retry: 5 * time.Millisecond}}
			o.network = network.Config{}
			r, did := numbered(t, o, map[string]any{"n": 0.25})
			n := 0
			rounded := listings(printed("0.25", "0"))
			listOnly(r.world, func(q sandbox.Request) sandbox.Fault {
				if q.Method == getProof {
					n++
					return c.fault(n)
				}
				return rounded(q)
			})
			job := r.complete(jobs.Request{Collection: status})
			if got := r.outcome(job, did); got != c.want || r.requested(getProof) != c.asked {
				t.Errorf("ended %s after %d requests for proofs, want %s after %d", got, r.requested(getProof), c.want, c.asked)
			}
		})
	}
}

// TestRecordThatChangesBeforeItsProof is updated, or deleted, between the page and the proof.
func TestRecordThatChangesBeforeItsProof(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*sandbox.World, syntax.DID) error{
		"updated": func(w *sandbox.World, did syntax.DID) error {
			_, err := w.Update(did, status, "key0000", map[string]any{"n": 3.25})
			return err
		},
		"deleted": func(w *sandbox.World, did syntax.DID) error { return w.Delete(did, status, "key0000") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, did := numbered(t, options{}, map[string]any{"n": 0.25}, map[string]any{"n": int64(1)})
			n := 0
			rounded := listings(printed("0.25", "0", "3.25", "3"))
			listOnly(r.world, func(q sandbox.Request) sandbox.Fault {
				if q.Method == getProof {
					if n++; n == 1 {
						if err := change(r.world, did); err != nil {
							t.Error(err)
						}
					}
				}
				return rounded(q)
			})
			job := r.complete(jobs.Request{Collection: status})
			if got := r.outcome(job, did); got != "done exact" {
				t.Errorf("ended %s", got)
			}
			r.wantTruth(status)
		})
	}
}

// TestBlockIsJudgedAlikeHoweverItCame has records whose blocks are in no data model, or
// spelt otherwise than they should be, read in each way.
func TestBlockIsJudgedAlikeHoweverItCame(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		animal   zoo.Behaviour
		rejected int64
		kept     int // of those that the animal adds
	}{
		{zoo.OutsideTheModel(), 8, 0},
		{zoo.SpeltOtherwise(), 0, 3},
	} {
		for _, way := range []string{"whole", "listed, with proofs", "listed alone"} {
			t.Run(c.animal.Name+", "+way, func(t *testing.T) {
				t.Parallel()
				r := newRig(t, sandbox.Config{Seed: 96, Repos: 1, Hosts: 1})
				did := r.world.Repos()[0].DID
				if _, err := r.world.Create(did, notes, "sound", map[string]any{"text": "sound"}); err != nil {
					t.Fatal(err)
				}
				sound := len(r.world.Truth(notes))
				r.world.Assign(did, c.animal)
				want := "done exact"
				if c.rejected > 0 {
					want = "failed rejected"
				}
				kept, rejected := c.kept, c.rejected
				switch way {
				case "whole":
					r.world.SetFault(noProofs(nil))
				case "listed, with proofs":
					listOnly(r.world, nil)
				default:
					listOnly(r.world, noProofs(nil))
					if c.kept > 0 { // the float that was printed as an integer has no proof
						want, kept, rejected = "failed rejected", c.kept-1, 1
					}
				}
				req := jobs.Request{Collection: notes}
				if way == "whole" {
					req = jobs.Request{}
				}
				job := r.complete(req)
				if got := r.outcome(job, did); got != want || job.Tally.Rejected != rejected {
					t.Errorf("ended %s with %d rejected, want %s with %d", got, job.Tally.Rejected, want, rejected)
				}
				if got := len(r.served(notes)); got != sound+kept {
					t.Errorf("%d records, want %d", got, sound+kept)
				}
			})
		}
	}
}

// TestProofsAreCountedOverARestart stops a job between two steps of a repo, the first of
// which has asked for all the proofs that there may be.
func TestProofsAreCountedOverARestart(t *testing.T) {
	t.Parallel()
	var values []map[string]any
	for i := range 1200 {
		values = append(values, map[string]any{"n": float64(i) + 0.25})
	}
	r, did := numbered(t, options{}, values...)
	g, pages := newGate(), 0
	rounded := printed(".25", "")
	listOnly(r.world, func(q sandbox.Request) sandbox.Fault {
		if q.Method != listRecords {
			return sandbox.Fault{}
		}
		if pages++; pages == 8 {
			g.wait()
		}
		return rounded
	})
	job := r.create(jobs.Request{Collection: status})
	g.arrival(t)
	if n := r.requested(getProof); n != 100 {
		t.Errorf("%d proofs were asked for in the first step", n)
	}
	stopped := make(chan struct{})
	go func() { r.stop(); close(stopped) }()
	close(g.opened)
	<-stopped
	r.run(options{})
	job = r.finish(job)
	if got := r.outcome(job, did); got != "failed rejected" || r.requested(getProof) != 100 || job.Tally.Records != 100 {
		t.Errorf("ended %s with %d requests for proofs: %+v", got, r.requested(getProof), job.Tally)
	}
}
