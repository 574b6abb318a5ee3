package cmd

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"appview/cmd/service"
	"appview/internal/network"
	"appview/internal/sandbox"
	"appview/internal/sandbox/sandboxtest"
	"appview/internal/sandbox/zoo"
)

const (
	soakRepos   = 5000
	soakPerHost = 25
	// soakLimit is how long one of its jobs may take: many times the retry window.
	soakLimit = 25 * time.Minute
	// soakMemory is what the program may hold in anonymous memory, and soakBodies
	// what bodies may take beside that.
	soakMemory, soakBodies = 128 << 10, 128 << 10 // KiB
	// limitedPause is what limited hosts ask for.
	limitedPause = 5 * time.Second
)

// troubles are the kinds of hosts with which something is wrong, and how many of
// 200 each is. A repo of such a host fails, but for those that are only limited.
func troubles() map[string]int {
	return map[string]int{"dead": 12, "stalled": 8, "half dead": 6, "dripping": 4, "refusing": 4, "limited": 6, "zoo": 12}
}

// soak is one job of the built program over one network.
type soak struct {
	healthy, all       time.Duration
	anonymous          int64 // KiB, at most
	before, after      int   // goroutines
	reasons            map[string]string
	exported           map[string]string
	lines, total, fail int
}

// TestSoak reads a network of 5,000 repos on 200 hosts, a quarter of which are in
// trouble, with the program's default settings, in a process of its own. Before
// that, it reads the healthy hosts alone. It takes ten minutes, so it runs only when
// SOAK is set: by make soak.
//
//nolint:paralleltest // what it measures is for it alone
func TestSoak(t *testing.T) {
	if os.Getenv("SOAK") == "" {
		t.Skip("make soak runs it")
	}
	hosts, sick := soakRepos/soakPerHost, 0
	for _, n := range troubles() {
		sick += n
	}
	config := func(hosts int) sandbox.Config {
		return sandbox.Config{Seed: 200, Repos: hosts * soakPerHost, Hosts: hosts, LogSize: 1 << 20, Collections: []sandbox.Collection{
			{NSID: sandbox.NoteCollection, Share: 1, MinRecords: 1, MaxRecords: 20},
		}}
	}
	alone := runSoak(t, sandboxtest.Start(t, config(hosts-sick)), nil)
	t.Logf("healthy hosts alone: %s, %d MiB anonymous", alone.healthy, alone.anonymous>>10)

	w := sandboxtest.Start(t, config(hosts))
	trouble := spread(w)
	limited := distress(t, w, trouble)
	got := runSoak(t, w, trouble)
	t.Logf("among others: healthy %s, all %s, %d MiB anonymous, goroutines %d before, %d after, %d repos, %d failed",
		got.healthy, got.all, got.anonymous>>10, got.before, got.after, got.total, got.fail)

	if ratio := got.healthy.Seconds() / alone.healthy.Seconds(); ratio > 1.3 {
		t.Errorf("the healthy hosts took %.2f times as long as alone", ratio)
	}
	// The tail begins when the last repo of the zoo, and of the limited hosts, has had its
	// attempts.
	if window := tailWanted + time.Minute; got.all-got.healthy > window {
		t.Errorf("what was left took %s after the healthy hosts, want at most %s", got.all-got.healthy, window)
	}
	if got.anonymous > soakMemory+soakBodies {
		t.Errorf("%d MiB of anonymous memory", got.anonymous>>10)
	}
	if got.after > got.before+20 { // connections that are still open have two each
		t.Errorf("%d goroutines before the job, %d after it", got.before, got.after)
	}
	if got.lines != got.total || got.total != soakRepos {
		t.Errorf("%d lines in the report of %d repos", got.lines, got.total)
	}
	wantSoaked(t, w, trouble, got)
	limited(w)
	for _, url := range append(w.HostURLs(), w.PLCURL(), w.RelayURL()) {
		most := int64(network.DefaultPerHost)
		if url == w.PLCURL() || url == w.RelayURL() {
			most = 128
		}
		if _, n := w.InFlight(url); n > most {
			t.Errorf("%d requests at once to %s", n, url)
		}
	}
}

// spread tells which hosts are in which trouble, the troubled evenly among the others.
func spread(w *sandbox.World) map[string]string {
	var kinds []string
	for kind, n := range troubles() {
		for range n {
			kinds = append(kinds, kind)
		}
	}
	trouble := map[string]string{}
	for i, kind := range kinds {
		trouble[w.HostURLs()[i*len(w.HostURLs())/len(kinds)]] = kind
	}
	return trouble
}

// distress makes the hosts misbehave. What it returns wants the limited ones to have
// been left alone whenever they asked for it.
func distress(t *testing.T, w *sandbox.World, trouble map[string]string) func(*sandbox.World) {
	t.Helper()
	animals, n := zoo.All(), 0
	for _, repo := range w.Repos() {
		if trouble[repo.Host] == "zoo" {
			w.Assign(repo.DID, animals[n%len(animals)])
			n++
		}
	}
	html := http.Header{"Content-Type": {"text/html"}}
	var mu sync.Mutex
	asked, pauses := map[string]int{}, map[string][]time.Time{}
	w.SetFault(func(q sandbox.Request) sandbox.Fault {
		f := sandbox.Fault{Name: trouble[q.Host]}
		switch trouble[q.Host] {
		case "dead":
			f.Status, f.Header, f.Body = http.StatusBadGateway, html, []byte("<html>Bad Gateway</html>")
		case "stalled":
			f.Hang = true
		case "half dead":
			f.Hang = !strings.HasSuffix(q.Method, "getRepoStatus")
		case "dripping":
			f.Drip = 500 * time.Millisecond
		case "refusing":
			f.Status, f.Header = http.StatusTooManyRequests, http.Header{"Retry-After": {"86400"}}
		case "limited":
			mu.Lock()
			defer mu.Unlock()
			if asked[q.Host]++; asked[q.Host]%20 != 0 {
				return sandbox.Fault{}
			}
			pauses[q.Host] = append(pauses[q.Host], time.Now())
			f.Status, f.Header = http.StatusTooManyRequests, http.Header{"Retry-After": {fmt.Sprint(limitedPause.Seconds())}}
		default:
			return sandbox.Fault{}
		}
		return f
	})
	return func(w *sandbox.World) {
		t.Helper()
		mu.Lock()
		defer mu.Unlock()
		for kind := range troubles() {
			if kind != "zoo" && w.Faults(kind) == 0 {
				t.Errorf("no host was %s", kind)
			}
		}
		const onTheWire = 250 * time.Millisecond
		for _, q := range w.Requests(func(q sandbox.Request) bool { return len(pauses[q.Host]) > 0 }) {
			for _, at := range pauses[q.Host] {
				if since := q.Started.Sub(at); since > onTheWire && since < limitedPause {
					t.Errorf("%s was sent %s after a 429 that asked for %s", q.Method, since, limitedPause)
				}
			}
		}
	}
}

// runSoak runs one job to its end, and looks at the program all the while.
func runSoak(t *testing.T, w *sandbox.World, trouble map[string]string) (s soak) {
	t.Helper()
	dir := t.TempDir()
	c := startChildFor(t, soakLimit, nil, "serve", "--data-dir", dir, "--listen", "127.0.0.1:0", "--relay", w.RelayURL(), "--plc", w.PLCURL(),
		"--allow-private-hosts", "--plc-rps", "2000") // the directory is not what is measured
	defer func() {
		if err := c.cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		c.wait()
	}()
	c.log.wait(t, "msg=serving")
	s.before = goroutinesOf(t, dir)
	want(t, exitOK, "created job", nil, "backfill", "create", "--collection", sandbox.NoteCollection.String(), "--data-dir", dir)
	began := time.Now()
	id := newestJob(t, dir).ID
	healthy := 0
	for _, repo := range w.Repos() {
		if trouble[repo.Host] == "" {
			healthy++
		}
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	late := time.After(soakLimit)
	for newestJob(t, dir).Status == "running" {
		s.anonymous = max(s.anonymous, anonymousKiB(t, c.cmd.Process.Pid))
		if s.healthy == 0 && settled(t, dir, id, trouble) == healthy {
			s.healthy = time.Since(began)
		}
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("not done after %s: %s", soakLimit, ask(t, dir, "/admin/backfill/"+id))
		}
	}
	if s.all = time.Since(began); s.healthy == 0 {
		s.healthy = s.all
	}
	if job := newestJob(t, dir); job.Status != "completed" {
		t.Fatalf("the job is %s: %v", job.Status, job.Error)
	}
	// Connections are kept for a while.
	for end := time.Now().Add(2 * time.Minute); ; <-tick.C {
		if s.after = goroutinesOf(t, dir); s.after <= s.before+10 || time.Now().After(end) {
			break
		}
	}
	s.exported, s.reasons = exported(t, dir), map[string]string{}
	for line := range strings.Lines(want(t, exitOK, "", nil, "backfill", "report", "--json", id, "--data-dir", dir)) {
		var repo struct{ DID, Class, Reason string }
		if err := json.Unmarshal([]byte(line), &repo); err != nil {
			t.Fatal(err)
		}
		s.lines++
		switch repo.Class {
		case "failed":
			s.fail++
		case "unavailable":
		default: // of what could be read, the report says only what it came to
			repo.Class, repo.Reason = "done", repo.Class
		}
		s.reasons[repo.DID] = repo.Class + " " + repo.Reason
	}
	var counts struct {
		TotalRepos int `json:"total_repos"`
	}
	if err := json.Unmarshal(ask(t, dir, "/admin/backfill/"+id), &counts); err != nil {
		t.Fatal(err)
	}
	s.total = counts.TotalRepos
	return s
}

// settled is how many repos are settled on hosts that nothing is wrong with.
func settled(t *testing.T, dir, id string, trouble map[string]string) (n int) {
	t.Helper()
	var summary struct {
		Hosts []struct {
			URL       string `json:"pds_endpoint"`
			Completed int    `json:"completed_repos"`
			Failed    int    `json:"failed_repos"`
		} `json:"pds_endpoints"`
	}
	if err := json.Unmarshal(ask(t, dir, "/admin/backfill/"+id+"/pds-summary"), &summary); err != nil {
		t.Fatal(err)
	}
	for _, h := range summary.Hosts {
		if trouble[h.URL] == "" {
			n += h.Completed + h.Failed
		}
	}
	return n
}

// goroutinesOf is how many the server on a data directory has.
func goroutinesOf(t *testing.T, dir string) (n int) {
	t.Helper()
	_, text := page(t, strings.TrimSpace(read(t, dir+"/"+service.URLFile))+"/metrics")
	_, after, _ := strings.Cut(text, "\ngo_goroutines ")
	if _, err := fmt.Sscan(after, &n); err != nil {
		t.Fatalf("goroutines: %v", err)
	}
	return n
}

// wantSoaked wants every repo that could be read to be exact, and every other one
// to have ended as it should.
func wantSoaked(t *testing.T, w *sandbox.World, trouble map[string]string, got soak) {
	t.Helper()
	wrong := map[string]int{}
	missing := map[string]sandbox.Record{}
	truth := w.Truth(sandbox.NoteCollection)
	for _, repo := range w.Repos() {
		kind, ended := trouble[repo.Host], got.reasons[repo.DID.String()]
		o := zoo.Expected(w, repo.DID, false, sandbox.NoteCollection)
		expected := o.Class + " " + o.Reason
		switch kind {
		case "", "limited", "zoo":
			if kind == "zoo" && o.Reason == "rev_went_back" {
				expected = "done exact" // nothing of it was held, so that there is nothing to go back behind
				if len(w.TruthOf(repo.DID, sandbox.NoteCollection)) == 0 {
					expected = "done empty"
				}
			}
			if ended != expected {
				wrong[fmt.Sprintf("%s: %s instead of %s", kind, ended, expected)]++
			}
		case "refusing":
			if ended != "failed rate_limited" {
				wrong[kind+": "+ended]++
			}
		default:
			if !strings.HasPrefix(ended, "failed ") {
				wrong[kind+": "+ended]++
			}
		}
		if strings.HasPrefix(ended, "done ") {
			maps.Copy(missing, w.TruthOf(repo.DID, sandbox.NoteCollection))
		}
	}
	for what, n := range wrong {
		t.Errorf("%d repos ended %s", n, what)
	}
	for uri, cid := range got.exported {
		if rec, ok := truth[uri]; !ok || rec.CID != cid {
			t.Errorf("%s is in the index, with %s", uri, cid)
		}
		delete(missing, uri)
	}
	for uri := range missing {
		t.Errorf("%s is not in the index", uri)
		break
	}
}
