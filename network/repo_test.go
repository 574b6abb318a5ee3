package network

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/sandbox"
	"appview/sandbox/sandboxtest"
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
	w := sandboxtest.Start(t, sandbox.Config{Seed: 7, Hosts: 3, Repos: 30, Whales: 1, Odd: 0.1})
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
		held := r.walker.car.held
		r.Close()
		r.Close()
		for range r.Records(t.Context(), sandbox.StatusCollection) {
			t.Error("a closed repo has records")
		}
		if size := w.Requests(nil); known.Records > 1000 && float64(held) > 1.3*float64(size[len(size)-1].Bytes) {
			t.Errorf("a CAR of %d bytes takes %d", size[len(size)-1].Bytes, held)
		}
	}
	if !c.cars.pool.TryAcquire(carBudget - maxCARHeld) {
		t.Error("closed repos still hold memory")
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
		wantReason(t, err, []Reason{ReasonDeactivated, ReasonTakenDown, ReasonSuspended, ReasonNotFound}[i])
	}
}

func TestRecordsThatNobodyCanAddressAreRejectedAlone(t *testing.T) {
	t.Parallel()
	m := newCARMaker(t)
	v := m.value(1)
	large := m.put(strings.Repeat("x", maxBlock+1))
	raw := "\x01\x55\x12\x20" + strings.Repeat("r", 32)
	var leaves []leaf
	want := map[string]string{}
	for _, key := range []string{
		keys("a.b.c", 0, 1)[0], keys("a.b.c.d", 0, 1)[0], keys("a.b.c-d", 0, 1)[0], keys("not-an-nsid", 0, 1)[0],
		keys("a.b.c/with a space", 0, 1)[0], keys("a.b.c/two/slashes", 0, 1)[0], keys("a.b.c-d/\x00", 0, 1)[0], keys("a.b.c/large", 0, 1)[0] + "", keys("a.b.z\n", 0, 1)[0],
	} {
		leaves = append(leaves, leaf{key: key, value: v})
	}
	leaves = append(leaves, leaf{key: low0("a.b.large"), value: large}, leaf{key: low0("a.b.raw"), value: raw})
	slices.SortFunc(leaves, func(x, y leaf) int { return strings.Compare(x.key, y.key) })
	bad := 0
	for _, l := range leaves {
		if _, _, err := syntax.ParseRepoPath(l.key); err != nil {
			bad++
			continue
		}
		want[l.key] = l.value
	}
	client := newClient(t, Config{})
	r, err := client.Repo(t.Context(), serveCAR(t, m.car(m.commit(m.node("", compress(leaves...)...), nil))), m.ident())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got := r.Rejected(); got.Count != bad || bad == 0 || got.First == "" {
		t.Errorf("rejected: %+v, want %d", got, bad)
	}
	got := map[string]string{}
	for _, collection := range r.Collections() {
		for rkey, b := range r.Records(t.Context(), collection) {
			got[collection.String()+"/"+rkey.String()] = string(b.CID.Bytes())
			if kept := b.Data != nil; kept != (collection != "a.b.large" && collection != "a.b.raw") {
				t.Errorf("%s/%s: kept %v", collection, rkey, kept)
			}
		}
	}
	if len(got) != len(want) {
		t.Errorf("got %d records, want %d", len(got), len(want))
	}
	for key, id := range want {
		if got[key] != id {
			t.Errorf("%s is %x, want %x", key, got[key], id)
		}
	}
}

// A block can be named by any number of keys, and is a record as often; keys can share
// nearly all of their bytes, and each is as long as it is. So a repo must not say much
// more than was sent.
func TestASmallCARIsNotAHugeRepo(t *testing.T) {
	t.Parallel()
	m := newCARMaker(t)
	large := m.put("\xa1\x61b" + cborHead(majorBytes, maxBlock-16) + strings.Repeat("x", maxBlock-16))
	small := m.value(1)
	const long = "com.example.thing/" // and a long beginning of the record key
	for name, c := range map[string]struct {
		value, beginning string
		times            int
		want             Reason
	}{
		"a large record, as often as it may be":   {large, long, expansion + freeExpansion/maxBlock, ""},
		"a large record, once more":               {large, long, expansion + freeExpansion/maxBlock + 1, ReasonTooLarge},
		"a small record under many keys":          {small, long, 9_000, ""},
		"a small record under many long keys":     {small, long + strings.Repeat("k", 480), 9_000, ReasonTooLarge},
		"a small record under fewer long keys":    {small, long + strings.Repeat("k", 480), 3_000, ""},
		"no record under many paths too long":     {"\x01\x55\x00\x00", strings.Repeat("k", 1000), 9_000, ReasonTooLarge},
		"no record under many keys that are none": {"\x01\x55\x00\x00", "k", 9_000, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// The one block that matters, and the tree.
			n := carMaker{tb: t, key: m.key}
			for _, b := range m.blocks {
				if b[0] == c.value {
					n.put(b[1])
				}
			}
			root := n.node("", compressed(c.value, keysFrom(c.beginning, 0, c.times)...)...)
			r, err := newClient(t, Config{}).Repo(t.Context(), serveCAR(t, n.car(n.commit(root, nil))), m.ident())
			if reasonOf(err) != string(c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if err == nil {
				r.Close()
			}
		})
	}
}

// TestRepoIsWhatComes has repos, and refusals, of another content type and status than
// they are.
func TestRepoIsWhatComes(t *testing.T) {
	t.Parallel()
	const json = "application/json"
	m := newCARMaker(t)
	body := m.car(m.commit(m.node(""), nil))
	for name, x := range map[string]struct {
		do   http.HandlerFunc
		want Reason
	}{
		"as a page":             {says(200, "text/html", body), ""},
		"as text":               {says(200, "text/plain", body), ""},
		"as nothing":            {says(200, "", body), ""},
		"a page":                {says(200, "application/vnd.ipld.car", "<!DOCTYPE html><html>"), ReasonBadAnswer},
		"refused in a 200":      {says(200, "application/vnd.ipld.car", `{"error":"RepoDeactivated","message":"off"}`), ReasonDeactivated},
		"unknown in a 200":      {says(200, json, "\ufeff"+`{"error":"repo_not_found"}`), ReasonNotFound},
		"an error in a 200":     {says(200, json, `{"error":"InternalServerError"}`), ReasonBadAnswer},
		"cut error in a 200":    {says(200, json, `{"error":"RepoDeac`), ReasonBadAnswer},
		"unknown in plain text": {says(404, "text/plain", "404: Not Found"), ReasonHTTP4xx},
		"unknown, spelt":        {says(404, json, `{"error":"REPO_NOT_FOUND"}`), ReasonNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, err := newClient(t, Config{}).Repo(t.Context(), serve(t, x.do), m.ident())
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
	m := newCARMaker(t)
	body := m.car(m.commit(m.node(""), nil))
	var lost atomic.Bool
	host := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("did") == alice.String() && !lost.Load() {
			says(200, "application/vnd.ipld.car", body)(w, r)
			return
		}
		says(404, "text/html", "<h1>Not Found</h1>")(w, r)
	})
	c, other := newClient(t, Config{}), m.ident()
	other.DID = neighbour
	for _, want := range []bool{false, true} {
		_, err := c.Repo(t.Context(), host, other)
		if want {
			wantInferred(t, err, true)
		} else {
			wantReason(t, err, ReasonBadAnswer) // nothing was given yet
		}
		r, err := c.Repo(t.Context(), host, m.ident())
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
	}
	lost.Store(true)
	_, err := c.Repo(t.Context(), host, other)
	wantReason(t, err, ReasonBadAnswer)
}

func TestWithoutAKeyNothingIsAsked(t *testing.T) {
	t.Parallel()
	host := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("asked") })
	_, err := newClient(t, Config{}).Repo(t.Context(), host, Identity{DID: alice})
	wantReason(t, err, ReasonBadSignature)
}

func TestBodiesOfReposAreWatched(t *testing.T) {
	t.Parallel()
	begin := carHeader(idOf("x"))
	for name, c := range map[string]struct {
		do   http.HandlerFunc
		want Reason
	}{
		"cut": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write([]byte(begin))
		}, ReasonCutBody},
		"stands still": {func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write([]byte(begin))
			stall(w, r)
		}, ReasonTimeout},
		"drips": {func(w http.ResponseWriter, r *http.Request) {
			rc := http.NewResponseController(w)
			_, _ = w.Write([]byte(begin))
			every(r, 20*time.Millisecond, func() error {
				_, _ = w.Write([]byte("\x01x"))
				return rc.Flush()
			})
		}, ReasonTimeout},
		"no such method": {says(501, "application/json", `{"error":"MethodNotImplemented"}`), ReasonHTTP5xx},
		"asks to wait":   {says(429, "application/json", `{}`, "Retry-After", "60"), "parked: rate_limited"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := newClient(t, Config{Timing: Timing{BodyIdle: 300 * time.Millisecond}})
			_, err := client.Repo(t.Context(), serve(t, c.do), newCARMaker(t).ident())
			if reasonOf(err) != string(c.want) {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

func TestManyReposShareTheBudgetWithoutDeadlock(t *testing.T) {
	t.Parallel()
	m := newCARMaker(t)
	for i := range 200 {
		m.put(strings.Repeat(string(rune('a'+i%26)), 10_000) + fmt.Sprint(i))
	}
	root := m.node("", leaf{key: low0("com.example.thing"), value: m.value(1)})
	host := serveCAR(t, m.car(m.commit(root, nil)))
	c := newClient(t, Config{})
	c.cars = newSpooledBudget(maxCARHeld+1<<20, maxCARHeld, maxCAR+1<<20, maxCAR) // less than one of them beside the reserve
	results := make(chan error, 24)
	for range cap(results) {
		go func() {
			r, err := c.Repo(t.Context(), host, m.ident())
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
	if !c.cars.pool.TryAcquire(1<<20) || !c.cars.reserve.TryAcquire(1) {
		t.Error("memory is still held")
	}
}

func TestReposHaveAQuotaOfTheirOwn(t *testing.T) {
	t.Parallel()
	m := newCARMaker(t)
	body := m.car(m.commit(m.node(""), nil))
	host := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, methodGetRepo) {
			says(200, "application/vnd.ipld.car", body, "RateLimit-Remaining", "1000", "RateLimit-Reset", "60")(w, r)
			return
		}
		says(200, "application/json", `{"records":[]}`, "RateLimit-Remaining", "0", "RateLimit-Reset", "60")(w, r)
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
	r, err := c.Repo(t.Context(), host, m.ident())
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
}

func TestARefusalOnOneQuotaSilencesTheHost(t *testing.T) {
	t.Parallel()
	host := serve(t, says(429, "application/json", `{}`, "Retry-After", "60"))
	c := newClient(t, Config{})
	_, err := c.Repo(t.Context(), host, newCARMaker(t).ident())
	p, ok := errors.AsType[*Parked](err)
	if !ok || p.Why != WhyRateLimited {
		t.Fatalf("got %v", err)
	}
	if _, err := page(t, c, host); reasonOf(err) != "parked: rate_limited" {
		t.Errorf("listRecords was sent: %v", err)
	}
}
