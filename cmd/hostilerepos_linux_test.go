package cmd

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"appview/cmd/service"
	"appview/internal/sandbox"
	"appview/internal/sandbox/sandboxtest"
	"appview/internal/sandbox/zoo"
)

const (
	// hostileHosts is how many hosts serve one repo each that wants a reader's memory.
	hostileHosts = 12
	// hostileMemory is what the program may have of anonymous memory beside them.
	hostileMemory = 256 << 10 // KiB
)

// hostileKinds are what the hosts serve, by turns.
func hostileKinds() map[string][]zoo.Behaviour {
	kinds := map[string][]zoo.Behaviour{
		"long keys":            {zoo.LongKeys(6, 32_000)}, // 4.57 MB
		"long record keys":     {zoo.LongRecordKeys(16_000)},
		"own long record keys": {zoo.OwnLongRecordKeys(16_000, 190)},
		"named often":          {zoo.NamedOften(16_000, 900_000)},
		"small, named often":   {zoo.NamedOften(16_000, 10)},
		"tiny blocks":          {zoo.TinyBlocks(60 << 20)},
		"large cars":           {zoo.LargeCAR(120 << 20)},
	}
	var all []zoo.Behaviour
	for _, b := range kinds {
		all = append(all, b...)
	}
	kinds["all"] = all
	return kinds
}

// TestHostileRepos reads 4,000 small repos whole, alone, and beside hosts that serve
// repos which want a reader's memory, its time and its disk. It takes minutes, and so
// runs only when SOAK is set. HOSTILE names one kind of them.
//
//nolint:paralleltest // what it measures is for it alone
func TestHostileRepos(t *testing.T) {
	if os.Getenv("SOAK") == "" {
		t.Skip("make soak runs it")
	}
	alone := readHostile(t, nil, hostileJob{})
	t.Logf("alone: %s, %s of processor, %d MiB anonymous, %d MiB of database", alone.healthy, alone.cpu, alone.anonymous>>10, alone.disk>>20)
	for name, kinds := range hostileKinds() {
		if only := os.Getenv("HOSTILE"); only != "" && only != name {
			continue
		}
		t.Run(name, func(t *testing.T) {
			got := readHostile(t, kinds, hostileJob{})
			t.Logf("healthy %s (%.2f), all %s, %s of processor for each hostile repo, %d MiB anonymous, %d MiB of database more",
				got.healthy, got.healthy.Seconds()/alone.healthy.Seconds(), got.all, (got.cpu-alone.cpu)/hostileHosts, got.anonymous>>10, (got.disk-alone.disk)>>20)
			if got.anonymous > hostileMemory {
				t.Errorf("%d MiB of anonymous memory", got.anonymous>>10)
			}
		})
	}
}

// hostileRun is what a job took.
type hostileRun struct {
	healthy, all, cpu time.Duration
	anonymous         int64 // KiB, at most
	disk              int64 // bytes of the database
	tooLarge          int   // accounts that were refused for their size
}

// hostileJob says what is read: all records, of whole repos, or one collection, by listing.
type hostileJob struct {
	collection string
	flags      []string // of the server
}

// readHostile reads small repos. With kinds, there is one hostile repo on each of some
// hosts besides.
func readHostile(t *testing.T, kinds []zoo.Behaviour, in hostileJob) hostileRun {
	t.Helper()
	const hosts, repos = 40, 4000
	// As many repos are on each host; those of the last ones are the hostile ones.
	w := sandboxtest.Start(t, sandbox.Config{Seed: 300, Repos: repos, Hosts: hosts + hostileHosts, LogSize: 1, Collections: []sandbox.Collection{
		{NSID: sandbox.NoteCollection, Share: 1, MinRecords: 20, MaxRecords: 20},
	}})
	for i, kind := range kinds {
		// Each kind is fetched once, so that it is made before the job begins.
		for n := i; n < hostileHosts; n += len(kinds) {
			did, err := w.AddRepo(w.HostURLs()[hosts+n])
			if err != nil {
				t.Fatal(err)
			}
			// The relay lists it for its records, which fill a page: what is made up comes behind.
			var writes []sandbox.Write
			for range 100 {
				writes = append(writes, sandbox.Write{Op: sandbox.OpCreate, Collection: sandbox.NoteCollection, Value: map[string]any{"text": "sound"}})
			}
			if _, err := w.Apply(did, writes); err != nil {
				t.Fatal(err)
			}
			w.Assign(did, kind)
			if n == i && in.collection == "" {
				if status, _ := page(t, w.HostURLs()[hosts+n]+"/xrpc/com.atproto.sync.getRepo?did="+did.String()); status != http.StatusOK {
					t.Fatalf("the host answers %d", status)
				}
			}
		}
	}
	hostile, healthy := map[string]string{}, 0
	for _, url := range w.HostURLs()[hosts:] {
		hostile[url] = "hostile"
	}
	for _, repo := range w.Repos() {
		if hostile[repo.Host] == "" {
			healthy++
		}
	}
	return readAll(t, w, healthy, hostile, in)
}

// readAll runs a job in a process of its own, and measures when so many repos are settled
// on other hosts than the hostile ones.
func readAll(t *testing.T, w *sandbox.World, healthy int, hostile map[string]string, in hostileJob) (run hostileRun) {
	t.Helper()
	dir := t.TempDir()
	c := startChildFor(t, soakLimit, nil, append([]string{
		"serve", "--data-dir", dir, "--listen", "127.0.0.1:0", "--relay", w.RelayURL(), "--plc", w.PLCURL(),
		"--allow-private-hosts", "--plc-rps", "2000", "--host-rps", "20",
	}, in.flags...)...)
	c.log.wait(t, "msg=serving")
	create := []string{"backfill", "create", "--data-dir", dir}
	if in.collection != "" {
		create = append(create, "--collection", in.collection)
	}
	want(t, exitOK, "created job", nil, create...)
	began := time.Now()
	id := newestJob(t, dir).ID
	for tick := time.Tick(100 * time.Millisecond); newestJob(t, dir).Status == "running"; <-tick {
		run.anonymous = max(run.anonymous, anonymousKiB(t, c.cmd.Process.Pid))
		if run.healthy == 0 && settled(t, dir, id, hostile) >= healthy {
			run.healthy = time.Since(began)
		}
		if time.Since(began) > soakLimit {
			t.Fatalf("not done: %s", ask(t, dir, "/admin/backfill/"+id))
		}
	}
	if run.all = time.Since(began); run.healthy == 0 {
		run.healthy = run.all
	}
	answer := ask(t, dir, "/admin/backfill/"+id)
	t.Logf("%s", answer)
	var job struct {
		Reasons map[string]int `json:"reasons"`
	}
	if err := json.Unmarshal(answer, &job); err != nil {
		t.Fatal(err)
	}
	run.tooLarge = job.Reasons["too_large"]
	c.terminate(exitOK)
	run.cpu = c.cmd.ProcessState.UserTime() + c.cmd.ProcessState.SystemTime()
	if info, err := os.Stat(filepath.Join(dir, service.DatabaseFile)); err == nil {
		run.disk = info.Size()
	}
	return run
}

// TestHostileAccounts reads 4,000 small repos, alone, and beside hosts that list records of
// one account each, or what is to be rejected, without an end.
//
//nolint:paralleltest // what it measures is for it alone
func TestHostileAccounts(t *testing.T) {
	if os.Getenv("SOAK") == "" {
		t.Skip("make soak runs it")
	}
	const most = 64 << 20
	in := hostileJob{collection: sandbox.NoteCollection.String(), flags: []string{"--max-account-bytes", strconv.Itoa(most)}}
	alone := readHostile(t, nil, in)
	for _, b := range []zoo.Behaviour{zoo.EndlessRecords(900, 100), zoo.EndlessRejects(900)} {
		t.Run(b.Name, func(t *testing.T) {
			got := readHostile(t, []zoo.Behaviour{b}, in)
			if got.tooLarge != hostileHosts {
				t.Fatalf("%d accounts are too large, want all %d hostile ones", got.tooLarge, hostileHosts)
			}
			each := (got.disk - alone.disk) / hostileHosts
			t.Logf("healthy %s (%.2f of alone), all %s, %s of processor for each hostile account, %d MiB anonymous, %d MiB of database for each",
				got.healthy, got.healthy.Seconds()/alone.healthy.Seconds(), got.all, (got.cpu-alone.cpu)/hostileHosts, got.anonymous>>10, each>>20)
			if got.anonymous > hostileMemory || each > most*5/4 {
				t.Errorf("%d MiB of anonymous memory, %d bytes of database for each, who may take %d", got.anonymous>>10, each, most)
			}
		})
	}
}

// TestLargeHonestRepo reads a repo of 200,000 records, of about 72 MB, in one piece.
//
//nolint:paralleltest // what it measures is for it alone
func TestLargeHonestRepo(t *testing.T) {
	if os.Getenv("SOAK") == "" {
		t.Skip("make soak runs it")
	}
	w := sandboxtest.Start(t, sandbox.Config{Seed: 301, Repos: 1, Hosts: 1, LogSize: 100, Collections: []sandbox.Collection{
		{NSID: sandbox.NoteCollection, Share: 1, MinRecords: 100_000, MaxRecords: 100_000, RecordBytes: 290},
		{NSID: "com.example.other", Share: 1, MinRecords: 100_000, MaxRecords: 100_000, RecordBytes: 290},
	}})
	repo := w.Repos()[0]
	_, car := page(t, repo.Host+"/xrpc/com.atproto.sync.getRepo?did="+repo.DID.String())
	got := readAll(t, w, 1, nil, hostileJob{})
	t.Logf("%d MB of CAR: %s, %s of processor, %d MiB anonymous, %d MiB of database", len(car)/1_000_000, got.all, got.cpu, got.anonymous>>10, got.disk>>20)
	if got.anonymous > hostileMemory {
		t.Errorf("%d MiB of anonymous memory", got.anonymous>>10)
	}
	if n := w.Count(sandbox.PartPDS, "com.atproto.repo.listRecords"); n > 0 {
		t.Errorf("it was listed: %d pages", n)
	}
}
