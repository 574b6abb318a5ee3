package sandbox_test

import (
	"context"
	"errors"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"

	"appview/internal/sandbox"
	"appview/internal/sandbox/sandboxtest"
)

func TestSameSeedMakesSameWorld(t *testing.T) {
	t.Parallel()
	build := func(seed int64) map[string]sandbox.Record {
		w, err := sandbox.New(sandbox.Config{Seed: seed, Hosts: 3, Repos: 30, Odd: 0.1})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range w.Repos()[:5] {
			for i := range 3 {
				rkey := syntax.RecordKey("")
				if i == 0 {
					rkey = "self"
				}
				if _, err := w.Create(r.DID, sandbox.NoteCollection, rkey, map[string]any{"n": i}); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return w.Truth()
	}
	first, second, other := build(7), build(7), build(8)
	if len(first) == 0 || len(first) != len(second) {
		t.Fatalf("%d and %d records", len(first), len(second))
	}
	for uri, r := range first {
		s := second[uri]
		if s.CID != r.CID || s.Rev != r.Rev || string(s.Value) != string(r.Value) || s.Odd != r.Odd {
			t.Errorf("%s differs: %+v %+v", uri, r, s)
		}
		if _, ok := other[uri]; ok {
			t.Errorf("%s is also in the world of another seed", uri)
		}
	}
}

// unserved is a world that nobody asks over HTTP.
func unserved(t *testing.T, cfg sandbox.Config) *sandbox.World {
	t.Helper()
	w, err := sandbox.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return w
}

func TestRecordsHashToTheirCIDsUnlessOdd(t *testing.T) {
	t.Parallel()
	w := unserved(t, sandbox.Config{Seed: 2, Hosts: 1, Repos: 60, Odd: 0.2})
	odd, members := 0, map[string]bool{}
	for uri, r := range w.Truth() {
		same := recomputed(r) == r.CID
		if same == r.Odd {
			t.Errorf("%s: odd is %t, CID can be recomputed is %t: %s", uri, r.Odd, same, r.Value)
		}
		if r.Odd {
			odd++
			continue
		}
		value, err := atdata.UnmarshalJSON(r.Value)
		if err != nil {
			t.Fatalf("%s: %v", uri, err)
		}
		for name := range value {
			members[name] = true
		}
	}
	if odd == 0 {
		t.Error("no record is odd")
	}
	if len(members) < 14 {
		t.Errorf("records have only the members %v", members)
	}
}

// recomputed is the CID that a reader of the JSON finds, or empty.
func recomputed(r sandbox.Record) string {
	value, err := atdata.UnmarshalJSON(r.Value)
	if err != nil {
		return ""
	}
	block, err := atdata.MarshalCBOR(value)
	if err != nil {
		return ""
	}
	c, err := cid.V1Builder{Codec: cid.DagCBOR, MhType: 0x12}.Sum(block)
	if err != nil {
		return ""
	}
	return c.String()
}

func TestLargeReposAndSkew(t *testing.T) {
	t.Parallel()
	w := unserved(t, sandbox.Config{Seed: 3, Hosts: 5, Repos: 200, LargeRepos: 2, Skew: true})
	perHost := map[string]int{}
	for i, r := range w.Repos() {
		perHost[r.Host]++
		if n := len(w.TruthOf(r.DID, sandbox.StatusCollection)); (n > 1000) != (i < 2) {
			t.Errorf("repo %d has %d records", i, n)
		}
	}
	if len(perHost) != 5 || perHost[w.HostURLs()[0]] < 80 {
		t.Errorf("repos per host: %v", perHost)
	}
}

func TestConfigRefused(t *testing.T) {
	t.Parallel()
	for what, cfg := range map[string]sandbox.Config{
		"negative hosts":   {Hosts: -1},
		"too many repos":   {Repos: 1 << 30},
		"bad share":        {Odd: 1.5},
		"bad NSID":         {Collections: []sandbox.Collection{{NSID: "one.two", MaxRecords: 1}}},
		"max below min":    {Collections: []sandbox.Collection{{NSID: sandbox.NoteCollection, MinRecords: 2, MaxRecords: 1}}},
		"more large repos": {Repos: 1, LargeRepos: 2},
		"twice the same":   {Collections: []sandbox.Collection{{NSID: sandbox.NoteCollection}, {NSID: sandbox.NoteCollection}}},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			if w, err := sandbox.New(cfg); err == nil {
				t.Errorf("made a world: %v", w.Close())
			}
		})
	}
}

// TestRunLeavesNothingBehind looks at all goroutines, so it does not run beside
// other tests.
func TestRunLeavesNothingBehind(t *testing.T) { //nolint:paralleltest // counts the process's goroutines
	w, err := sandbox.New(sandbox.Config{Hosts: 3, Repos: 6})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	c := newClient(t)
	for _, r := range w.Repos() {
		c.readRepo(r.Host, r.DID)
	}
	entered := make(chan struct{})
	w.SetFault(func(sandbox.Request) sandbox.Fault {
		close(entered)
		return sandbox.Fault{Hang: true}
	})
	hung := make(chan error, 1)
	go func() {
		_, err := c.try(context.WithoutCancel(t.Context()), w.PLCURL()+"/_health")
		hung <- err
	}()
	<-entered
	cancel()
	if err := <-ended; err != nil {
		t.Fatalf("run: %v", err)
	}
	if err := <-hung; err == nil {
		t.Error("the hanging request was answered")
	}
	if err := w.Run(t.Context()); err == nil {
		t.Error("a world ran twice")
	}
	// A connection reports its end a few instructions before its goroutine is gone.
	deadline := time.Now().Add(5 * time.Second)
	for left := leftBehind(); left != ""; left = leftBehind() {
		if time.Now().After(deadline) {
			t.Fatalf("left behind: %s", left)
		}
		runtime.Gosched()
	}
	if _, err := c.try(t.Context(), w.RelayURL()+"/xrpc/_health"); err == nil {
		t.Error("the relay still listens")
	}
}

// leftBehind is the stack of a goroutine that serves, if there is one.
func leftBehind() string {
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	for stack := range strings.SplitSeq(string(stacks), "\n\n") {
		if strings.Contains(stack, "appview/internal/sandbox.(*") || strings.Contains(stack, "net/http.(*conn).serve") {
			return stack
		}
	}
	return ""
}

func TestChangesNeedAnActiveAccountAndTheRightRecord(t *testing.T) {
	t.Parallel()
	w := sandboxtest.Start(t, sandbox.Config{Hosts: 2, Repos: 2})
	did := w.Repos()[0].DID
	value := map[string]any{"text": "x"}
	r, err := w.Create(did, sandbox.NoteCollection, "self", value)
	if err != nil {
		t.Fatal(err)
	}
	before := w.Truth()
	rev := account(t, w, did).Rev
	for what, check := range map[string]struct {
		do   func() error
		want error
	}{
		"create what exists": {func() error { _, err := w.Create(did, r.Collection, r.RKey, value); return err }, sandbox.ErrRecordExists},
		"update nothing":     {func() error { _, err := w.Update(did, r.Collection, "none", value); return err }, sandbox.ErrNoRecord},
		"delete nothing":     {func() error { return w.Delete(did, r.Collection, "none") }, sandbox.ErrNoRecord},
		"unknown account":    {func() error { return w.Deactivate("did:plc:none") }, sandbox.ErrUnknownAccount},
		"half a commit": {func() error {
			_, err := w.Apply(did, []sandbox.Write{
				{Op: sandbox.OpDelete, Collection: r.Collection, RKey: r.RKey},
				{Op: sandbox.OpDelete, Collection: r.Collection, RKey: "none"},
			})
			return err
		}, sandbox.ErrNoRecord},
	} {
		if err := check.do(); !errors.Is(err, check.want) {
			t.Errorf("%s: got %v, want %v", what, err, check.want)
		}
	}
	if _, err := w.Create(did, r.Collection, "bad/key", value); err == nil {
		t.Error("a bad record key was taken")
	}
	if _, err := w.Create(did, r.Collection, "", map[string]any{"c": make(chan int)}); err == nil {
		t.Error("a value that is no data was taken")
	}
	if got := account(t, w, did).Rev; got != rev || len(w.Truth()) != len(before) {
		t.Errorf("refused changes moved the rev from %s to %s", rev, got)
	}
	if err := w.Suspend(did); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Create(did, r.Collection, "", value); !errors.Is(err, sandbox.ErrInactive) {
		t.Errorf("create in a suspended repo: %v", err)
	}
	if err := w.DeleteAccount(did); err != nil {
		t.Fatal(err)
	}
	if err := w.Activate(did); !errors.Is(err, sandbox.ErrInactive) {
		t.Errorf("a deleted account came back: %v", err)
	}
}

func TestHostsHaveAddressesOfTheirOwn(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("only Linux answers on all of 127.0.0.0/8")
	}
	w := sandboxtest.Start(t, sandbox.Config{Hosts: 300, Repos: 300})
	hosts := w.HostURLs()
	for i, h := range hosts {
		hosts[i] = h[:strings.LastIndex(h, ":")]
	}
	slices.Sort(hosts)
	if n := len(slices.Compact(hosts)); n != 300 {
		t.Errorf("300 hosts have %d addresses", n)
	}
	c := newClient(t)
	last := w.Repos()[299]
	if r := c.get(xrpc(last.Host, getRepoStatus, "did", last.DID.String())); r.status != http.StatusOK {
		t.Errorf("the last host: %d %s", r.status, r.body)
	}
}

func account(tb testing.TB, w *sandbox.World, did syntax.DID) sandbox.Repo {
	tb.Helper()
	r, err := w.Repo(did)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}
