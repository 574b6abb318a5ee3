package backfill_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/backfill"
	"appview/internal/api"
	"appview/internal/network"
	"appview/internal/network/outcome"
	"appview/internal/sandbox"
	"appview/internal/sandbox/sandboxtest"
	"appview/internal/sandbox/zoo"
	"appview/store/jobs"
)

// tries is how often a job of TestEveryReason tries a repo.
const tries = 3

// way is how a reason comes about, by what hosts do.
type way struct {
	// spoil makes it so, before the job is created, for the repo that the job is
	// about. It may choose another repo, or have the job be about all: then the last
	// one that ends with the reason is looked at.
	spoil func(r *rig, did syntax.DID) syntax.DID
	whole bool // the job is about all collections
	// attempts is how many count; nil: as many as the reason is worth.
	attempts func(r *rig, did syntax.DID) int
}

// everywhere is a fault for the requests about a repo to its host.
func everywhere(f sandbox.Fault, methods ...string) func(*rig, syntax.DID) syntax.DID {
	return func(r *rig, did syntax.DID) syntax.DID {
		r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
			if q.Part == sandbox.PartPDS && q.DID == did.String() && (len(methods) == 0 || slices.Contains(methods, q.Method)) {
				return f
			}
			return sandbox.Fault{}
		})
		return did
	}
}

// animal gives the repo a behaviour. Without getRepo, a CAR cures nothing.
func animal(b zoo.Behaviour, listed bool) func(*rig, syntax.DID) syntax.DID {
	return func(r *rig, did syntax.DID) syntax.DID {
		if listed {
			listOnly(r.world, nil)
		}
		r.world.Assign(did, b)
		return did
	}
}

// changed does something to the account.
func changed(do func(*sandbox.World, syntax.DID) error) func(*rig, syntax.DID) syntax.DID {
	return func(r *rig, did syntax.DID) syntax.DID {
		if err := do(r.world, did); err != nil {
			r.t.Fatal(err)
		}
		return did
	}
}

// elsewhere has the DID document name another host.
func elsewhere(endpoint func(testing.TB) string) func(*rig, syntax.DID) syntax.DID {
	return func(r *rig, did syntax.DID) syntax.DID {
		r.world.Assign(did, zoo.Endpoint("elsewhere", endpoint(r.t), zoo.Outcome{}))
		return did
	}
}

// deadPort is where nobody listens.
func deadPort(tb testing.TB) string {
	tb.Helper()
	ln, err := new(net.ListenConfig).Listen(tb.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer ln.Close() //nolint:errcheck // it only had to have a port
	return "http://" + ln.Addr().String()
}

// plainPort is where nobody speaks TLS.
func plainPort(tb testing.TB) string {
	tb.Helper()
	s := httptest.NewServer(http.NotFoundHandler())
	tb.Cleanup(s.Close)
	return strings.Replace(s.URL, "http:", "https:", 1)
}

// ways are those to every reason.
func ways() map[outcome.Reason]way {
	const json = "application/json"
	data := []string{listRecords, getRepo}
	return map[outcome.Reason]way{
		outcome.ReasonExact: {spoil: animal(zoo.Behaviour{}, false)},
		outcome.ReasonChangedDuringRead: {spoil: func(r *rig, did syntax.DID) syntax.DID {
			var n atomic.Int64
			listOnly(r.world, func(q sandbox.Request) sandbox.Fault {
				if q.Method == listRecords && q.DID == did.String() {
					value := map[string]any{"$type": string(status), "status": "🙂", "createdAt": fmt.Sprintf("2026-01-01T00:00:%02dZ", n.Add(1)%60)}
					if _, err := r.world.Create(did, status, "", value); err != nil {
						r.t.Error(err)
					}
				}
				return sandbox.Fault{}
			})
			return did
		}},
		outcome.ReasonEmpty: {spoil: changed(func(w *sandbox.World, did syntax.DID) error { _, err := w.Empty(did); return err })},

		outcome.ReasonNotFound: {spoil: changed((*sandbox.World).DeleteAccount)},
		outcome.ReasonDeleted: {spoil: func(r *rig, did syntax.DID) syntax.DID {
			return everywhere(says("deleted", fmt.Sprintf(`{"did":%q,"active":false,"status":"deleted"}`, did)), repoStatus)(r, did)
		}},
		outcome.ReasonTakenDown:   {spoil: changed((*sandbox.World).TakeDown)},
		outcome.ReasonSuspended:   {spoil: changed((*sandbox.World).Suspend)},
		outcome.ReasonDeactivated: {spoil: changed((*sandbox.World).Deactivate)},
		outcome.ReasonNoPDS:       {spoil: animal(zoo.NoPDS(), false)},
		outcome.ReasonBadDID:      {spoil: func(*rig, syntax.DID) syntax.DID { return "did:key:zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme" }},
		outcome.ReasonTombstoned:  {spoil: changed((*sandbox.World).Tombstone)},
		outcome.ReasonDenied: {spoil: func(r *rig, did syntax.DID) syntax.DID {
			if err := r.store.Index.Deny(r.t.Context(), did.String(), ""); err != nil {
				r.t.Fatal(err)
			}
			return did
		}},

		outcome.ReasonDNS:        {spoil: elsewhere(func(testing.TB) string { return "http://nowhere.test" })},
		outcome.ReasonConnect:    {spoil: elsewhere(deadPort)},
		outcome.ReasonTLS:        {spoil: elsewhere(plainPort)},
		outcome.ReasonTimeout:    {spoil: everywhere(sandbox.Fault{Hang: true})},
		outcome.ReasonHTTP5xx:    {spoil: animal(zoo.ServerErrors(), false)},
		outcome.ReasonCutBody:    {spoil: everywhere(sandbox.Fault{Cut: true, CutAfter: 20}, data...)},
		outcome.ReasonBadAnswer:  {spoil: everywhere(refusal(http.StatusOK, json, `{"nonsense":true}`), data...)},
		outcome.ReasonIncomplete: {attempts: once, spoil: animal(zoo.EmptyPages(), true)},
		outcome.ReasonDIDLookup:  {spoil: animal(zoo.BadDocument(), false)},
		outcome.ReasonHostDown: {attempts: refused, spoil: func(r *rig, _ syntax.DID) syntax.DID {
			r.world.SetFault(func(q sandbox.Request) sandbox.Fault {
				if q.Part != sandbox.PartPDS {
					return sandbox.Fault{}
				}
				return refusal(http.StatusBadGateway, "text/html", "<html>Bad Gateway</html>")
			})
			return ""
		}},
		outcome.ReasonRateLimited: {attempts: func(*rig, syntax.DID) int { return 0 }, spoil: everywhere(sandbox.Fault{
			Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"7200"}},
		})},
		outcome.ReasonNoRev: {spoil: animal(zoo.NoRev(), true)},

		outcome.ReasonHTTP4xx:      {spoil: everywhere(refusal(http.StatusForbidden, json, `{"error":"Forbidden"}`), data...)},
		outcome.ReasonBadEndpoint:  {spoil: animal(zoo.EndpointWithPath(), false)},
		outcome.ReasonBadSignature: {whole: true, spoil: animal(zoo.WrongKey(), false)},
		outcome.ReasonBadRev:       {spoil: animal(zoo.FutureRev(), false)},
		outcome.ReasonRevWentBack:  {spoil: animal(zoo.RevGoesBack(), false)},
		outcome.ReasonTooLarge:     {spoil: animal(zoo.GzipBomb(), true)},
		outcome.ReasonRejected:     {spoil: animal(zoo.WrongCID(), true)},
	}
}

// TestEveryReason brings every reason about by real requests, and looks at the
// class that it has, how often the repo was tried, and what the operator reads.
func TestEveryReason(t *testing.T) {
	t.Parallel()
	ways := ways()
	for _, reason := range outcome.Reasons() {
		t.Run(string(reason), func(t *testing.T) {
			t.Parallel()
			if reason == outcome.ReasonRefusedAddress {
				wantRefusedAddress(t)
				return
			}
			way, ok := ways[reason]
			if !ok {
				t.Fatal("nothing brings it about")
			}
			o := options{config: backfill.Config{Attempts: tries, Retry: time.Millisecond}}
			o.network.Resolver = sandboxtest.Resolver(t, func(string) []netip.Addr { return nil })
			o.network.Timing = network.Timing{Probe: 10 * time.Millisecond, MaxProbe: 10 * time.Millisecond, Header: patient(300 * time.Millisecond)}
			// Two pages, so that there is something to change in between.
			r := newRigWith(t, sandbox.Config{Seed: 130, Repos: 12, Hosts: 1, Collections: statuses(120, 120)}, o)
			r.complete(jobs.Request{}) // so that there is something to go back behind
			before := r.rows()
			did := way.spoil(r, r.world.Repos()[0].DID)
			request := jobs.Request{Collection: status, DID: did}
			if way.whole {
				request.Collection = ""
			}
			job := r.finish(r.create(request))
			if job.Status != api.StatusCompleted {
				t.Fatalf("job: %+v", job)
			}
			if did == "" {
				did = r.last(job, reason)
			}
			repo := r.repo(job, did)
			r.wantReason(job, repo, reason)
			want := 1
			switch {
			case way.attempts != nil: // what waits for a host costs none
				want = way.attempts(r, did)
			case reason.Class() == outcome.ClassFailed && reason.Retryable():
				want = tries
			case reason.Class() == outcome.ClassUnavailable:
				want = repo.Attempts // an answer, at whichever attempt
			}
			if repo.Attempts != want {
				t.Errorf("%d attempts, want %d", repo.Attempts, want)
			}
			if reason.Class() == outcome.ClassFailed && reason != outcome.ReasonRejected {
				if after := r.rows(); !slices.Equal(before, after) {
					t.Error("a failed repo changed the index")
				}
			}
		})
	}
}

// once is one attempt: the passes over a listing without an end belong to it.
func once(*rig, syntax.DID) int { return 1 }

// refused is how many requests about a repo its host has met with a fault.
func refused(r *rig, did syntax.DID) int {
	return len(r.world.Requests(func(q sandbox.Request) bool { return q.Fault && q.DID == did.String() }))
}

// last is the last repo of a job's that has ended with the reason.
func (r *rig) last(job jobs.Job, reason outcome.Reason) syntax.DID {
	r.t.Helper()
	list, _, err := r.store.Jobs.JobRepos(r.t.Context(), job.Seq, "", 1000, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, repo := range slices.Backward(list) {
		if repo.Reason == string(reason) {
			return repo.DID
		}
	}
	r.t.Fatalf("no repo has ended with %s: %+v", reason, list)
	return ""
}

// repo is what became of one repo of a job.
func (r *rig) repo(job jobs.Job, did syntax.DID) jobs.JobRepo {
	r.t.Helper()
	for after := syntax.DID(""); ; {
		list, next, err := r.store.Jobs.JobRepos(r.t.Context(), job.Seq, after, 1000, nil)
		if err != nil {
			r.t.Fatal(err)
		}
		for _, repo := range list {
			if repo.DID == did {
				return repo
			}
		}
		if next == "" {
			r.t.Fatalf("%s is not among the repos of the job", did)
		}
		after = next
	}
}

// wantReason looks at what is shown of a repo that ended with a reason.
func (r *rig) wantReason(job jobs.Job, repo jobs.JobRepo, reason outcome.Reason) {
	r.t.Helper()
	if repo.Class != string(reason.Class()) || repo.Reason != string(reason) {
		r.t.Errorf("ended %s %s (%s), want %s %s", repo.Class, repo.Reason, repo.Detail, reason.Class(), reason)
	}
	if job.Reasons[string(reason)] == 0 {
		r.t.Errorf("the job counts %v", job.Reasons)
	}
	said := strings.Contains(job.Error, " "+string(reason))
	if spoken := reason.Class() != outcome.ClassDone; said != (spoken && (reason.Class() == outcome.ClassFailed || !job.Request.Network())) {
		r.t.Errorf("the job's error is %q", job.Error)
	}
	if reason.Class() == outcome.ClassFailed && repo.Detail == "" && reason != outcome.ReasonRejected {
		r.t.Error("nothing is said of what went wrong")
	}
	if len(repo.Detail) > 400 || strings.ContainsAny(repo.Detail, "\r\n") {
		r.t.Errorf("what is said is no line: %q", repo.Detail)
	}
}

// wantRefusedAddress brings that reason about with the guard on, which lets nothing
// through to a sandbox: by a DID whose document is at a private address.
func wantRefusedAddress(t *testing.T) {
	t.Helper()
	net, err := network.New(network.Config{Resolver: sandboxtest.Resolver(t, func(string) []netip.Addr {
		return []netip.Addr{netip.MustParseAddr("10.1.2.3")}
	})})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(net.Close)
	r := newRig(t, sandbox.Config{Seed: 131, Repos: 1, Hosts: 1})
	r.stop()
	b, err := backfill.New(backfill.Config{Store: r.store, Network: net, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	job, err := b.Create(t.Context(), jobs.Request{DID: "did:web:inside.example.com", Collection: status})
	if err != nil {
		t.Fatal(err)
	}
	job = r.finish(job)
	r.wantReason(job, r.repo(job, "did:web:inside.example.com"), outcome.ReasonRefusedAddress)
}

// TestEveryReasonIsExplained wants what the operator is told of every reason: what
// it means and what to do.
func TestEveryReasonIsExplained(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	explained := map[string]int{}
	for line := range strings.Lines(string(page)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(cells) != 3 || !strings.HasPrefix(strings.TrimSpace(cells[0]), "`") {
			continue
		}
		if strings.TrimSpace(cells[1]) == "" || strings.TrimSpace(cells[2]) == "" {
			t.Errorf("a row says nothing: %s", line)
		}
		for name := range strings.SplitSeq(cells[0], ",") {
			explained[strings.Trim(strings.TrimSpace(name), "`")]++
		}
	}
	for _, reason := range outcome.Reasons() {
		if explained[string(reason)] != 1 {
			t.Errorf("%s is explained %d times", reason, explained[string(reason)])
		}
	}
}
