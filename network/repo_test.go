package network

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/repo"
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
		for rkey, b := range r.Records(collection) {
			n++
			uri := "at://" + did.String() + "/" + collection.String() + "/" + rkey.String()
			if want, ok := truth[uri]; !ok || want.CID != b.CID.String() {
				tb.Fatalf("%s is %s, the truth %q", uri, b.CID, want.CID)
			}
			if sum, err := b.CID.Prefix().Sum(b.Data); err != nil || sum != b.CID {
				tb.Fatalf("%s: the block is another one's: %v", uri, err)
			}
			if rkey <= last {
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
		if r.Rev != known.Rev || r.Rejected != 0 || (len(r.Collections()) == 0) != (known.DID == empty || known.Records == 0) {
			t.Errorf("%s: rev %s, want %s; %d rejected; collections %v", known.DID, r.Rev, known.Rev, r.Rejected, r.Collections())
		}
		wantRecords(t, r, known.DID, w.TruthOf(known.DID))
		for range r.Records("com.example.absent") {
			t.Error("a collection that is not there has records")
		}
		for range r.Records(sandbox.StatusCollection) {
			break // a walk may end early
		}
		held := r.car.held
		r.Close()
		r.Close()
		for range r.Records(sandbox.StatusCollection) {
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

// TestHostileCARs has one way of being wrong a row. Every row starts from a
// sound repo of two layers: node(low) key node(high).
func TestHostileCARs(t *testing.T) {
	t.Parallel()
	const collection = "com.example.thing"
	low := keys(collection, 0, 2)
	middle := between(t, 1, low[0], low[1])
	// sound adds the usual tree and gives its root with the two nodes below it.
	sound := func(m *carMaker) (root, left, right string) {
		left = m.node("", leaf{key: low[0], value: m.value(1)})
		right = m.node("", leaf{key: low[1], value: m.value(2)})
		return m.node(left, leaf{key: middle, value: m.value(3), right: right}), left, right
	}
	usual := func(m *carMaker) string {
		root, _, _ := sound(m)
		return m.car(m.commit(root, nil))
	}
	single := func(leaves ...leaf) func(m *carMaker) string {
		return func(m *carMaker) string {
			for i := range leaves {
				if leaves[i].value == "" {
					leaves[i].value = m.value(9)
				}
			}
			return m.car(m.commit(m.node("", leaves...), nil))
		}
	}
	committed := func(change func(*repo.Commit)) func(*carMaker) string {
		return func(m *carMaker) string {
			root, _, _ := sound(m)
			return m.car(m.commit(root, change))
		}
	}
	without := func(which int) func(*carMaker) string {
		return func(m *carMaker) string {
			root, left, right := sound(m)
			head := m.commit(root, nil)
			m.drop([]string{head, root, left, right, m.value(1)}[which])
			if which == 4 {
				m.drop(m.blocks[len(m.blocks)-1][0]) // value added it once more
			}
			return m.car(head)
		}
	}
	raw := "\x01\x55\x12\x20" + strings.Repeat("r", 32)
	ahead := syntax.NewTID(time.Now().Add(48*time.Hour).UnixMicro(), 1).String()
	for name, c := range map[string]struct {
		make func(*carMaker) string
		want Reason
	}{
		"sound":           {usual, ""},
		"two roots":       {func(m *carMaker) string { root, left, _ := sound(m); return m.car(m.commit(root, nil), left) }, ""},
		"repeated blocks": {func(m *carMaker) string { b := usual(m); return b + b[len(carHeader(idOf(""))):] }, ""},
		"strange blocks": {func(m *carMaker) string {
			return usual(m) + frame(raw+"anything") + frame("\x12\x20"+strings.Repeat("0", 32)) + frame("x") + frame("")[1:]
		}, ""},
		"large strange block": {func(m *carMaker) string {
			return usual(m) + frame(idOf(strings.Repeat("x", maxBlock+1))+strings.Repeat("x", maxBlock+1))
		}, ""},
		"empty repo": {func(m *carMaker) string { return m.car(m.commit(m.node(""), nil)) }, ""},

		"nothing":                 {func(*carMaker) string { return "" }, ReasonCutBody},
		"text":                    {func(*carMaker) string { return "hello, this is no car" }, ReasonBadAnswer},
		"json":                    {func(*carMaker) string { return `{"error":"none"}` }, ReasonBadAnswer},
		"html":                    {func(*carMaker) string { return "<!doctype html>" }, ReasonBadAnswer},
		"header only":             {func(*carMaker) string { return carHeader(idOf("x")) }, ReasonIncomplete},
		"no roots":                {func(m *carMaker) string { usual(m); return m.car() }, ReasonBadAnswer},
		"raw root":                {func(m *carMaker) string { usual(m); return m.car(raw) }, ReasonBadAnswer},
		"root that is a node":     {func(m *carMaker) string { root, _, _ := sound(m); return m.car(root) }, ReasonBadAnswer},
		"root that is a record":   {func(m *carMaker) string { return m.car(m.value(1)) }, ReasonBadAnswer},
		"version 2":               {func(m *carMaker) string { return strings.Replace(usual(m), "version\x01", "version\x02", 1) }, ReasonBadAnswer},
		"huge header":             {func(*carMaker) string { return "\xff\xff\xff\xff\x0f" }, ReasonBadAnswer},
		"header of many roots":    {func(*carMaker) string { return frame("\xa2\x65roots\x9b\x7f\xff\xff\xff\xff\xff\xff\xff") }, ReasonBadAnswer},
		"huge block":              {func(m *carMaker) string { return usual(m) + "\xff\xff\xff\xff\xff\xff\xff\xff\x7f" }, ReasonBadAnswer},
		"endless varint":          {func(m *carMaker) string { return usual(m) + strings.Repeat("\xff", 20) }, ReasonBadAnswer},
		"empty block":             {func(m *carMaker) string { return usual(m) + "\x00" }, ReasonBadAnswer},
		"cut in a block":          {func(m *carMaker) string { b := usual(m); return b[:len(b)-5] }, ReasonCutBody},
		"cut in a cid":            {func(m *carMaker) string { return usual(m) + "\x40" + linkPrefix }, ReasonCutBody},
		"cut in a length":         {func(m *carMaker) string { return usual(m) + "\x80" }, ReasonCutBody},
		"cut in a strange block":  {func(m *carMaker) string { return usual(m) + "\x40" + raw }, ReasonCutBody},
		"cut in the header":       {func(m *carMaker) string { return usual(m)[:20] }, ReasonCutBody},
		"wrong hash":              {func(m *carMaker) string { b := []byte(usual(m)); b[len(b)-1]++; return string(b) }, ReasonBadAnswer},
		"wrong hash, large block": {func(m *carMaker) string { return usual(m) + frame(idOf("x")+strings.Repeat("x", maxBlock+1)) }, ReasonBadAnswer},

		"commit missing":      {without(0), ReasonIncomplete},
		"top node missing":    {without(1), ReasonIncomplete},
		"left node missing":   {without(2), ReasonIncomplete},
		"right node missing":  {without(3), ReasonIncomplete},
		"record missing":      {without(4), ReasonIncomplete},
		"cut between blocks":  {func(m *carMaker) string { b := usual(m); return b[:strings.LastIndex(b, linkPrefix)-1] }, ReasonIncomplete},
		"another one's":       {committed(func(c *repo.Commit) { c.DID = "did:plc:bbbbbbbbbbbbbbbbbbbbbbbb" }), ReasonBadAnswer},
		"repo version 2":      {committed(func(c *repo.Commit) { c.Version = 2 }), ReasonBadAnswer},
		"rev is no tid":       {committed(func(c *repo.Commit) { c.Rev = "yesterday" }), ReasonBadRev},
		"no rev":              {committed(func(c *repo.Commit) { c.Rev = "" }), ReasonBadRev},
		"rev in the future":   {committed(func(c *repo.Commit) { c.Rev = ahead }), ReasonBadRev},
		"tree is a raw block": {func(m *carMaker) string { return m.car(m.commit(raw, nil)) }, ReasonBadAnswer},
		"wrong key": {func(m *carMaker) string {
			right := m.key
			m.key = newCARMaker(m.tb).key
			b := usual(m)
			m.key = right
			return b
		}, ReasonBadSignature},
		"commit with a tail": {func(m *carMaker) string {
			root, _, _ := sound(m)
			m.commit(root, nil)
			return m.car(m.put(m.blocks[len(m.blocks)-1][1] + "\xf6"))
		}, ReasonBadAnswer},
		"huge commit": {func(m *carMaker) string {
			root, _, _ := sound(m)
			return m.car(m.commit(root, func(c *repo.Commit) { c.Rev = strings.Repeat("2", maxCommit) }))
		}, ReasonBadAnswer},

		"prefix out of range": {single(leaf{key: low[0]}, leaf{key: "zzz", prefix: 1000}), ReasonBadAnswer},
		"first prefix":        {single(leaf{key: low[0], prefix: 1}), ReasonBadAnswer},
		"negative prefix":     {single(leaf{key: low[0], prefix: -1}), ReasonBadAnswer},
		"huge prefix":         {single(leaf{key: low[0]}, leaf{key: "z", prefix: 1 << 62}), ReasonBadAnswer},
		"empty key":           {single(leaf{key: ""}), ReasonBadAnswer},
		"key too long":        {single(leaf{key: strings.Repeat("k", 1025)}), ReasonBadAnswer},
		"duplicate key":       {single(leaf{key: low[0]}, leaf{key: low[0]}), ReasonBadAnswer},
		"unsorted":            {single(leaf{key: low[1]}, leaf{key: low[0]}), ReasonBadAnswer},
		"layers mixed":        {single(leaf{key: low[0]}, leaf{key: middle}), ReasonBadAnswer},
		"record without cid":  {single(leaf{key: low[0], value: "\x00"}), ReasonBadAnswer},
		"huge count": {func(m *carMaker) string {
			return m.car(m.commit(m.put("\xa2\x61e\x9b\x00\xff\xff\xff\xff\xff\xff\xff\x61l\xf6"), nil))
		}, ReasonBadAnswer},
		"endless array":   {func(m *carMaker) string { return m.car(m.commit(m.put("\xa2\x61e\x9f\xff\x61l\xf6"), nil)) }, ReasonBadAnswer},
		"node of floats":  {func(m *carMaker) string { return m.car(m.commit(m.put("\xa2\x61e\xf9\x00\x00\x61l\xf6"), nil)) }, ReasonBadAnswer},
		"node with tail":  {func(m *carMaker) string { return m.car(m.commit(m.put(nodeBytes("")+"\x00"), nil)) }, ReasonBadAnswer},
		"node cut":        {func(m *carMaker) string { b := nodeBytes(""); return m.car(m.commit(m.put(b[:len(b)-1]), nil)) }, ReasonBadAnswer},
		"members swapped": {func(m *carMaker) string { return m.car(m.commit(m.put("\xa2\x61l\xf6\x61e\x80"), nil)) }, ReasonBadAnswer},
		"long numbers":    {func(m *carMaker) string { return m.car(m.commit(m.put("\xa2\x61e\x98\x00\x61l\xf6"), nil)) }, ReasonBadAnswer},
		"deep chain": {func(m *carMaker) string {
			id := m.node("", leaf{key: low[0], value: m.value(1)})
			for range 1000 {
				id = m.node(id)
			}
			return m.car(m.commit(id, nil))
		}, ReasonBadAnswer},
		"top without a key": {func(m *carMaker) string {
			return m.car(m.commit(m.node(m.node("", leaf{key: low[0], value: m.value(1)})), nil))
		}, ReasonBadAnswer},
		"empty node below": {func(m *carMaker) string {
			return m.car(m.commit(m.node(m.node(""), leaf{key: middle, value: m.value(1)}), nil))
		}, ReasonBadAnswer},
		"left child of the wrong layer": {func(m *carMaker) string {
			top := keys(collection, 2, 1)[0]
			first := keys("com.example.a", 0, 1)[0]
			return m.car(m.commit(m.node(m.node("", leaf{key: first, value: m.value(1)}), leaf{key: top, value: m.value(2)}), nil))
		}, ReasonBadAnswer},
		"right child of the wrong layer": {func(m *carMaker) string {
			right := m.node("", leaf{key: keys("com.example.z", 1, 1)[0], value: m.value(1)})
			return m.car(m.commit(m.node("", leaf{key: middle, value: m.value(2), right: right}), nil))
		}, ReasonBadAnswer},
		"child below layer zero": {func(m *carMaker) string {
			right := m.node("", leaf{key: low[1], value: m.value(1)})
			return m.car(m.commit(m.node("", leaf{key: low[0], value: m.value(2), right: right}), nil))
		}, ReasonBadAnswer},
		"the same node twice": {func(m *carMaker) string {
			_, left, _ := sound(m)
			return m.car(m.commit(m.node(left, leaf{key: middle, value: m.value(2), right: left}), nil))
		}, ReasonBadAnswer},
		"child out of order": {func(m *carMaker) string {
			left, right := m.node("", leaf{key: low[1], value: m.value(1)}), m.node("", leaf{key: low[0], value: m.value(2)})
			return m.car(m.commit(m.node(left, leaf{key: middle, value: m.value(3), right: right}), nil))
		}, ReasonBadAnswer},
		"raw node": {func(m *carMaker) string {
			return m.car(m.commit(m.node(raw, leaf{key: middle, value: m.value(3)}), nil))
		}, ReasonBadAnswer},
		"large node": {func(m *carMaker) string { return m.car(m.commit(m.put(strings.Repeat("x", maxBlock+1)), nil)) }, ReasonTooLarge},
		"too many collections": {func(m *carMaker) string {
			var leaves []leaf
			v := m.value(1)
			for i := range maxCollections + 1 {
				leaves = append(leaves, leaf{key: keys(fmt.Sprintf("com.example.c%04d", i), 0, 1)[0], value: v})
			}
			return m.car(m.commit(m.node("", leaves...), nil))
		}, ReasonTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newCARMaker(t)
			host := serveCAR(t, c.make(m))
			client := newClient(t, Config{})
			r, err := client.Repo(t.Context(), host, m.ident())
			if got := reasonOf(err); got != string(c.want) {
				t.Fatalf("got %q (%v), want %q", got, err, c.want)
			}
			if err == nil {
				r.Close()
			} else if len(err.Error()) > 1000 || strings.Contains(err.Error(), "\n") {
				t.Errorf("error is no line: %q", err)
			}
			if st := client.HostState(host); (st.Failures > 0) != (name == "html") {
				t.Errorf("breaker: %+v", st)
			}
			if !client.cars.pool.TryAcquire(carBudget - maxCARHeld) {
				t.Error("memory is still held")
			}
		})
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
	r, err := client.Repo(t.Context(), serveCAR(t, m.car(m.commit(m.node("", leaves...), nil))), m.ident())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if r.Rejected != bad || bad == 0 || len(r.RejectedPaths) != bad || strings.Contains(strings.Join(r.RejectedPaths, ""), "\n") {
		t.Errorf("%d rejected: %q, want %d", r.Rejected, r.RejectedPaths, bad)
	}
	got := map[string]string{}
	for _, collection := range r.Collections() {
		for rkey, b := range r.Records(collection) {
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

func low0(collection string) string { return keys(collection, 0, 1)[0] }

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

func TestCARsPastTheCapAreTooLarge(t *testing.T) {
	t.Parallel()
	rest := []byte(frame(idOf(strings.Repeat("z", 1<<20)) + strings.Repeat("z", 1<<20)))
	tiny := []byte(strings.Repeat(frame(idOf("")), 20_000))
	for name, body := range map[string][]byte{"of large blocks": rest, "of tiny blocks": tiny} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sent := 0
			host := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				_, _ = w.Write([]byte(carHeader(idOf("x"))))
				for sent < maxCAR+maxCAR/4 {
					n, err := w.Write(body)
					if sent += n; err != nil {
						return
					}
				}
			})
			c := newClient(t, Config{})
			_, err := c.Repo(t.Context(), host, newCARMaker(t).ident())
			wantReason(t, err, ReasonTooLarge)
			if !c.cars.pool.TryAcquire(carBudget - maxCARHeld) {
				t.Error("memory is still held")
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
	c.cars = newBudget(maxCARHeld+1<<20, maxCARHeld) // less than one of them beside the reserve
	results := make(chan error, 24)
	for range cap(results) {
		go func() {
			r, err := c.Repo(t.Context(), host, m.ident())
			if err == nil {
				for range r.Records("com.example.thing") {
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
