package cmd

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/sandbox"
	"appview/internal/sandbox/sandboxtest"
)

// tailWanted is how long a job may take after the last of its hosts that gives
// anything, and a little for what is looked at once a second.
const tailWanted = 180*time.Second + 5*time.Second

// TestTail reads 2,000 repos on 100 hosts, of which four stall and four give 20 bytes a
// second, with the program's default settings. It takes five minutes, so it runs only
// when TAIL is set.
//
//nolint:paralleltest // what it measures is for it alone
func TestTail(t *testing.T) {
	if os.Getenv("TAIL") == "" {
		t.Skip("it takes five minutes: TAIL=1 runs it")
	}
	w := sandboxtest.Start(t, sandbox.Config{Seed: 300, Repos: 2000, Hosts: 100, LogSize: 1 << 20, Collections: []sandbox.Collection{
		{NSID: sandbox.NoteCollection, Share: 1, MinRecords: 1, MaxRecords: 20},
	}})
	trouble := map[string]string{}
	for i := range 8 {
		trouble[w.HostURLs()[i*12]] = []string{"stalled", "dripping"}[i%2]
	}
	w.SetFault(func(q sandbox.Request) sandbox.Fault {
		switch kind := trouble[q.Host]; kind {
		case "stalled":
			return sandbox.Fault{Name: kind, Hang: true}
		case "dripping":
			return sandbox.Fault{Name: kind, Drip: time.Second / 20}
		default:
			return sandbox.Fault{}
		}
	})
	got := runSoak(t, w, trouble)
	t.Logf("healthy hosts after %s, the job after %s: a tail of %s; %d of %d repos given up",
		got.healthy.Round(time.Second), got.all.Round(time.Second), (got.all - got.healthy).Round(time.Second), got.fail, got.total)
	if got.all-got.healthy > tailWanted {
		t.Errorf("the tail took %s, want at most %s", got.all-got.healthy, tailWanted)
	}
	if w.Faults("stalled") == 0 || w.Faults("dripping") == 0 {
		t.Error("nobody stalled, or nobody dripped")
	}
	ended := map[string]int{}
	for _, repo := range w.Repos() {
		reason := got.reasons[repo.DID.String()]
		ended[trouble[repo.Host]+": "+reason]++
		switch {
		case trouble[repo.Host] == "" && reason != "done exact",
			reason != "done exact" && reason != "failed host_down" && reason != "failed timeout":
			t.Errorf("%s ended %s", repo.DID, reason)
		}
	}
	t.Log(ended)
}

// TestTailOfSlowHosts reads from hosts that take their time, with the program's default
// settings: one that gives 8 KiB a second of every answer, one that asks for a pause of
// 300 s, and one that takes ten minutes over a repo of 200,000 records. It takes a
// quarter of an hour, so it runs only when TAIL is set.
//
//nolint:paralleltest // what it measures is for it alone
func TestTailOfSlowHosts(t *testing.T) {
	if os.Getenv("TAIL") == "" {
		t.Skip("it takes a quarter of an hour: TAIL=1 runs it")
	}
	const pause, takes = 300 * time.Second, 600 * time.Second
	w := sandboxtest.Start(t, sandbox.Config{Seed: 301, Repos: 80, Hosts: 4, LogSize: 1 << 20, Collections: []sandbox.Collection{
		{NSID: sandbox.NoteCollection, Share: 1, MinRecords: 1, MaxRecords: 20},
	}})
	slow, limited, large, stalled := w.HostURLs()[0], w.HostURLs()[1], w.HostURLs()[2], w.HostURLs()[3]
	grow(t, w, firstAt(w, slow), 3000)
	largeRepo := firstAt(w, large)
	grow(t, w, largeRepo, 200_000)
	size := carSize(t, large, largeRepo)
	var asked, until atomic.Int64
	w.SetFault(func(q sandbox.Request) sandbox.Fault {
		switch {
		case q.Host == slow:
			return sandbox.Fault{Name: "slow", Rate: 8 << 10}
		case q.Host == limited && asked.Add(1) == 20:
			until.Store(time.Now().Add(pause).UnixNano())
			fallthrough
		case q.Host == limited && time.Now().UnixNano() < until.Load():
			return sandbox.Fault{Name: "limited", Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {fmt.Sprint(pause.Seconds())}}}
		case q.Host == large && q.DID == largeRepo.String() && strings.HasSuffix(q.Method, "getRepo"):
			return sandbox.Fault{Name: "large", Rate: int(float64(size) / takes.Seconds())}
		case q.Host == stalled:
			return sandbox.Fault{Name: "stalled", Hang: true}
		default:
			return sandbox.Fault{}
		}
	})
	got := runSoak(t, w, map[string]string{stalled: "stalled"})
	t.Logf("a repo of %d bytes; all but the stalled host after %s, the job after %s, %d MiB anonymous",
		size, got.healthy.Round(time.Second), got.all.Round(time.Second), got.anonymous>>10)
	for _, kind := range []string{"slow", "limited", "large", "stalled"} {
		if w.Faults(kind) == 0 {
			t.Errorf("no host was %s", kind)
		}
	}
	if got.healthy < takes || got.all-got.healthy > tailWanted {
		t.Errorf("the job took %s, %s after the others", got.all, got.all-got.healthy)
	}
	records := 0
	for _, repo := range w.Repos() {
		if reason := got.reasons[repo.DID.String()]; repo.Host != stalled && reason != "done exact" {
			t.Errorf("%s at %s ended %s", repo.DID, repo.Host, reason)
		}
		if repo.Host != stalled {
			records += len(w.TruthOf(repo.DID, sandbox.NoteCollection))
		}
	}
	if records != len(got.exported) {
		t.Errorf("%d records in the index, want %d", len(got.exported), records)
	}
}

// firstAt is the first repo of a host.
func firstAt(w *sandbox.World, host string) syntax.DID {
	for _, repo := range w.Repos() {
		if repo.Host == host {
			return repo.DID
		}
	}
	return ""
}

// grow gives a repo so many records more.
func grow(t *testing.T, w *sandbox.World, did syntax.DID, n int) {
	t.Helper()
	writes := make([]sandbox.Write, 0, n)
	for i := range n {
		writes = append(writes, sandbox.Write{
			Op: sandbox.OpCreate, Collection: sandbox.NoteCollection, RKey: syntax.RecordKey(fmt.Sprintf("grown%07d", i)),
			Value: map[string]any{"$type": sandbox.NoteCollection.String(), "text": fmt.Sprintf("note %d", i)},
		})
	}
	if _, err := w.Apply(did, writes); err != nil {
		t.Fatal(err)
	}
}

// carSize is how many bytes a repo has in one piece.
func carSize(t *testing.T, host string, did syntax.DID) int64 {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, host+"/xrpc/com.atproto.sync.getRepo?did="+did.String(), http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := new(http.Transport).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	n, err := io.Copy(io.Discard, resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
