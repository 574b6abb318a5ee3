package network

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/network/hosttest"
	"appview/internal/network/outcome"
	"appview/internal/network/polite"
	"appview/internal/network/repo"
	"appview/internal/network/repo/repotest"
	"appview/internal/sandbox"
	"appview/internal/sandbox/sandboxtest"
)

// toWorld is a client of a sandbox.
func toWorld(tb testing.TB, w *sandbox.World) *Client {
	tb.Helper()
	return newClient(tb, Config{Relay: w.RelayURL(), PLC: w.PLCURL()})
}

func lookup(tb testing.TB, c *Client, did syntax.DID) Identity {
	tb.Helper()
	ident, err := c.Lookup(tb.Context(), did)
	if err != nil {
		tb.Fatal(err)
	}
	return ident
}

// wantRecords compares a repo, walked collection by collection, with the truth.
func wantRecords(tb testing.TB, r *Repo, did syntax.DID, truth map[string]sandbox.Record) {
	tb.Helper()
	n := 0
	for _, collection := range r.Collections() {
		last := syntax.RecordKey("")
		for rkey, b := range r.Records(tb.Context(), collection) {
			n++
			uri := "at://" + did.String() + "/" + collection.String() + "/" + rkey.String()
			if want, ok := truth[uri]; !ok || want.CID != b.CID.String() {
				tb.Fatalf("%s is %s, the truth %q", uri, b.CID, want.CID)
			}
			if sum, err := b.CID.Prefix().Sum(b.Data); err != nil || sum != b.CID {
				tb.Fatalf("%s: the block is another one's: %v", uri, err)
			}
			if last != "" && rkey >= last {
				tb.Fatalf("%s comes after %s", rkey, last)
			}
			last = rkey
		}
	}
	if n != len(truth) {
		tb.Fatalf("%s: walked %d records, the truth has %d", did, n, len(truth))
	}
}

func TestReposAreReadWholeAndVerified(t *testing.T) {
	t.Parallel()
	w := sandboxtest.Start(t, sandbox.Config{Seed: 7, Hosts: 3, Repos: 30, LargeRepos: 1, Odd: 0.1})
	c := toWorld(t, w)
	empty, err := w.AddRepo("")
	if err != nil {
		t.Fatal(err)
	}
	for _, known := range w.Repos() {
		r, err := c.Repo(t.Context(), Host(known.Host), lookup(t, c, known.DID))
		if err != nil {
			t.Fatal(err)
		}
		if r.Rev != known.Rev || r.Rejected().Count != 0 || (len(r.Collections()) == 0) != (known.DID == empty || known.Records == 0) {
			t.Errorf("%s: rev %s, want %s; %d rejected; collections %v", known.DID, r.Rev, known.Rev, r.Rejected().Count, r.Collections())
		}
		wantRecords(t, r, known.DID, w.TruthOf(known.DID))
		for range r.Records(t.Context(), "com.example.absent") {
			t.Error("a collection that is not there has records")
		}
		for range r.Records(t.Context(), sandbox.StatusCollection) {
			break // a walk may end early
		}
		held := c.Held()
		r.Close()
		r.Close()
		for range r.Records(t.Context(), sandbox.StatusCollection) {
			t.Error("a closed repo has records")
		}
		if size := w.Requests(nil); known.Records > 1000 && float64(held) > 1.3*float64(size[len(size)-1].Bytes) {
			t.Errorf("a CAR of %d bytes takes %d", size[len(size)-1].Bytes, held)
		}
	}
	if n := c.Held(); n != 0 {
		t.Errorf("closed repos still hold %d bytes", n)
	}
}

func TestTheRelaySendsOnToTheHostOfARepo(t *testing.T) {
	t.Parallel()
	w := sandboxtest.Start(t, sandbox.Config{Seed: 8, Hosts: 2, Repos: 2})
	c := toWorld(t, w)
	did := w.Repos()[1].DID
	r, err := c.Repo(t.Context(), c.Relay(), lookup(t, c, did))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	wantRecords(t, r, did, w.TruthOf(did))
}

func TestReposOfInactiveAccountsSayWhy(t *testing.T) {
	t.Parallel()
	w := sandboxtest.Start(t, sandbox.Config{Seed: 9, Hosts: 1, Repos: 4})
	c := toWorld(t, w)
	repos := w.Repos()
	for i, make := range []func(syntax.DID) error{w.Deactivate, w.TakeDown, w.Suspend, w.DeleteAccount} {
		if err := make(repos[i].DID); err != nil {
			t.Fatal(err)
		}
		_, err := c.Repo(t.Context(), Host(repos[i].Host), lookup(t, c, repos[i].DID))
		wantReason(t, err, []outcome.Reason{outcome.ReasonDeactivated, outcome.ReasonTakenDown, outcome.ReasonSuspended, outcome.ReasonNotFound}[i])
	}
}

// TestRepoIsWhatComes has repos, and refusals, of another content type and status than
// they are.
func TestRepoIsWhatComes(t *testing.T) {
	t.Parallel()
	const json = "application/json"
	m := repotest.New(t)
	body := m.CAR(m.Commit(m.Node(""), nil))
	for name, x := range map[string]struct {
		do   http.HandlerFunc
		want outcome.Reason
	}{
		"as a page":             {hosttest.Says(200, "text/html", body), ""},
		"as text":               {hosttest.Says(200, "text/plain", body), ""},
		"as nothing":            {hosttest.Says(200, "", body), ""},
		"a page":                {hosttest.Says(200, "application/vnd.ipld.car", "<!DOCTYPE html><html>"), outcome.ReasonBadAnswer},
		"refused in a 200":      {hosttest.Says(200, "application/vnd.ipld.car", `{"error":"RepoDeactivated","message":"off"}`), outcome.ReasonDeactivated},
		"unknown in a 200":      {hosttest.Says(200, json, "\ufeff"+`{"error":"repo_not_found"}`), outcome.ReasonNotFound},
		"an error in a 200":     {hosttest.Says(200, json, `{"error":"InternalServerError"}`), outcome.ReasonBadAnswer},
		"cut error in a 200":    {hosttest.Says(200, json, `{"error":"RepoDeac`), outcome.ReasonBadAnswer},
		"unknown in plain text": {hosttest.Says(404, "text/plain", "404: Not Found"), outcome.ReasonHTTP4xx},
		"unknown, spelt":        {hosttest.Says(404, json, `{"error":"REPO_NOT_FOUND"}`), outcome.ReasonNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, err := newClient(t, Config{}).Repo(t.Context(), hosttest.Serve(t, x.do), identOf(m))
			if reasonOf(err) != string(x.want) {
				t.Errorf("got %v, want %q", err, x.want)
			}
			if err == nil {
				r.Close()
			}
		})
	}
}

// TestRepoThatIsMissingAmongOthers has a host give one repo, and refuse another without a
// word.
func TestRepoThatIsMissingAmongOthers(t *testing.T) {
	t.Parallel()
	m := repotest.New(t)
	body := m.CAR(m.Commit(m.Node(""), nil))
	var lost atomic.Bool
	host := hosttest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("did") == alice.String() && !lost.Load() {
			hosttest.Says(200, "application/vnd.ipld.car", body)(w, r)
			return
		}
		hosttest.Says(404, "text/html", "<h1>Not Found</h1>")(w, r)
	})
	c, other := newClient(t, Config{}), identOf(m)
	other.DID = neighbour
	for _, want := range []bool{false, true} {
		_, err := c.Repo(t.Context(), host, other)
		if want {
			wantInferred(t, err, true)
		} else {
			wantReason(t, err, outcome.ReasonBadAnswer) // nothing was given yet
		}
		r, err := c.Repo(t.Context(), host, identOf(m))
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
	}
	lost.Store(true)
	_, err := c.Repo(t.Context(), host, other)
	wantReason(t, err, outcome.ReasonBadAnswer)
}

func TestWithoutAKeyNothingIsAsked(t *testing.T) {
	t.Parallel()
	host := hosttest.Serve(t, func(http.ResponseWriter, *http.Request) { t.Error("asked") })
	_, err := newClient(t, Config{}).Repo(t.Context(), host, Identity{DID: alice})
	wantReason(t, err, outcome.ReasonBadSignature)
}

func TestBodiesOfReposAreWatched(t *testing.T) {
	t.Parallel()
	begin := repotest.Header(repotest.IDOf("x"))
	for name, c := range map[string]struct {
		do   http.HandlerFunc
		want outcome.Reason
	}{
		"cut": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write([]byte(begin))
		}, outcome.ReasonCutBody},
		"stands still": {func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write([]byte(begin))
			hosttest.Stall(w, r)
		}, outcome.ReasonTimeout},
		"drips": {func(w http.ResponseWriter, r *http.Request) {
			rc := http.NewResponseController(w)
			_, _ = w.Write([]byte(begin))
			hosttest.Every(r, 20*time.Millisecond, func() error {
				_, _ = w.Write([]byte("\x01x"))
				return rc.Flush()
			})
		}, outcome.ReasonTimeout},
		"no such method": {hosttest.Says(501, "application/json", `{"error":"MethodNotImplemented"}`), outcome.ReasonHTTP5xx},
		"asks to wait":   {hosttest.Says(429, "application/json", `{}`, "Retry-After", "60"), "parked: rate_limited"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := newClient(t, Config{Timing: Timing{BodyIdle: 300 * time.Millisecond}})
			_, err := client.Repo(t.Context(), hosttest.Serve(t, c.do), identOf(repotest.New(t)))
			if reasonOf(err) != string(c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

func TestManyReposShareTheBudgetWithoutDeadlock(t *testing.T) {
	t.Parallel()
	m := repotest.New(t)
	for i := range 200 {
		m.Put(strings.Repeat(string(rune('a'+i%26)), 10_000) + fmt.Sprint(i))
	}
	root := m.Node("", repotest.Leaf{Key: repotest.FirstKey("com.example.thing"), Value: m.Value(1)})
	host := serveCAR(t, m.CAR(m.Commit(root, nil)))
	c := newClient(t, Config{})
	c.repos = polite.NewSpooledBudget(repo.MaxMemory+1<<20, repo.MaxMemory, repo.MaxCAR+1<<20, repo.MaxCAR) // less than one of them beside the reserve
	results := make(chan error, 24)
	for range cap(results) {
		go func() {
			r, err := c.Repo(t.Context(), host, identOf(m))
			if err == nil {
				for range r.Records(t.Context(), "com.example.thing") {
				}
				r.Close()
			}
			results <- err
		}()
	}
	for range cap(results) {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	if n := c.Held(); n != 0 {
		t.Errorf("%d bytes are still held", n)
	}
}

func TestReposHaveAQuotaOfTheirOwn(t *testing.T) {
	t.Parallel()
	m := repotest.New(t)
	body := m.CAR(m.Commit(m.Node(""), nil))
	host := hosttest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, methodGetRepo) {
			hosttest.Says(200, "application/vnd.ipld.car", body, "RateLimit-Remaining", "1000", "RateLimit-Reset", "60")(w, r)
			return
		}
		hosttest.Says(200, "application/json", `{"records":[]}`, "RateLimit-Remaining", "0", "RateLimit-Reset", "60")(w, r)
	})
	c := newClient(t, Config{})
	if _, err := page(t, c, host); err != nil {
		t.Fatal(err)
	}
	if _, err := page(t, c, host); reasonOf(err) != "parked: rate_limited" {
		t.Fatalf("the quota is spent: %v", err)
	}
	if _, parked := c.ParkedUntil(host); !parked {
		t.Error("not parked")
	}
	if until, parked := c.RepoParkedUntil(host); parked {
		t.Errorf("getRepo is parked until %s", until)
	}
	r, err := c.Repo(t.Context(), host, identOf(m))
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
}

func TestARefusalOnOneQuotaSilencesTheHost(t *testing.T) {
	t.Parallel()
	host := hosttest.Serve(t, hosttest.Says(429, "application/json", `{}`, "Retry-After", "60"))
	c := newClient(t, Config{})
	_, err := c.Repo(t.Context(), host, identOf(repotest.New(t)))
	p, ok := errors.AsType[*Parked](err)
	if !ok || p.Why != polite.WhyRateLimited {
		t.Fatalf("got %v", err)
	}
	if _, err := page(t, c, host); reasonOf(err) != "parked: rate_limited" {
		t.Errorf("listRecords was sent: %v", err)
	}
}

func TestCARsPastTheCapAreTooLarge(t *testing.T) {
	t.Parallel()
	rest := []byte(repotest.Frame(repotest.IDOf(strings.Repeat("z", 1<<20)) + strings.Repeat("z", 1<<20)))
	tiny := []byte(strings.Repeat(repotest.Frame(repotest.IDOf("")), 20_000))
	for name, body := range map[string][]byte{"of large blocks": rest, "of tiny blocks": tiny} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sent := 0
			host := hosttest.Serve(t, func(w http.ResponseWriter, _ *http.Request) {
				_, _ = w.Write([]byte(repotest.Header(repotest.IDOf("x"))))
				for sent < repo.MaxCAR+repo.MaxCAR/4 {
					n, err := w.Write(body)
					if sent += n; err != nil {
						return
					}
				}
			})
			c := newClient(t, Config{})
			_, err := c.Repo(t.Context(), host, identOf(repotest.New(t)))
			wantReason(t, err, outcome.ReasonTooLarge)
			if n := c.Held(); n != 0 {
				t.Errorf("%d bytes are still held", n)
			}
		})
	}
}

func TestMillionsOfStrangeBlocksAreNotRead(t *testing.T) {
	t.Parallel()
	m := repotest.New(t)
	m.Commit(m.Node(""), nil)
	var sent atomic.Int64
	host := hosttest.Serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/vnd.ipld.car")
		_, err := io.WriteString(w, repotest.Header(repotest.IDOf("x")))
		for junk := repeat("\x01x", 1<<15); err == nil && sent.Load() < repo.MaxCAR; {
			n, failed := io.WriteString(w, junk)
			sent.Add(int64(n))
			err = failed
		}
	})
	_, err := newClient(t, Config{}).Repo(t.Context(), host, identOf(m))
	wantReason(t, err, outcome.ReasonBadAnswer)
	if n := sent.Load(); n > 32<<20 { // what the sockets hold
		t.Errorf("%d bytes of it were read", n)
	}
}

// TestARepoThatIsNoGoodIsNoFaultOfTheHost has a host give what is no repo, which is an
// answer, and pages of a proxy, which are none.
func TestARepoThatIsNoGoodIsNoFaultOfTheHost(t *testing.T) {
	t.Parallel()
	for body, down := range map[string]bool{"hello, this is no car": false, "<!doctype html>": true} {
		c, host := newClient(t, Config{}), serveCAR(t, body)
		for i := range breakerTrips {
			ident := identOf(repotest.New(t))
			ident.DID = syntax.DID(fmt.Sprintf("did:plc:%024d", i))
			_, err := c.Repo(t.Context(), host, ident)
			wantReason(t, err, outcome.ReasonBadAnswer)
		}
		if _, parked := c.RepoParkedUntil(host); parked != down {
			t.Errorf("%q: parked %t, want %t", body, parked, down)
		}
		if n := c.Held(); n != 0 {
			t.Errorf("%q: %d bytes are still held", body, n)
		}
	}
}
