package cmd

import (
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/cmd/service"
	"appview/internal/sandbox"
	"appview/internal/sandbox/sandboxtest"
	"appview/store"
	"appview/store/jobs"
	"appview/store/storetest"
)

const repoStatus = "com.atproto.sync.getRepoStatus"

// What a process may have read and not committed when it is killed: the repos that
// are being read, what waits for the store's writer, and the group that it gathers.
const (
	refetchHosts = 16
	writerQueue  = 256
	writerGroup  = 500
)

// TestKilledJobFetchesAgainOnlyWhatWasInFlight kills the server when half of a job's
// repos are settled. The requests that the hosts see afterwards must be about none of
// them, and of the others that had been read about no more than can be in flight and
// in one group. With SOAK_SEEDS set the job has 20,000 repos.
func TestKilledJobFetchesAgainOnlyWhatWasInFlight(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	repos := 2_000
	if storetest.Soaking(t) > 0 {
		repos = 20_000
	}
	world := sandboxtest.Start(t, sandbox.Config{
		Seed: 42, Repos: repos, Hosts: refetchHosts, LogSize: 10 * repos,
		Collections: []sandbox.Collection{{NSID: sandbox.StatusCollection, Share: 1, MinRecords: 1, MaxRecords: 1}},
	})
	dir := t.TempDir()
	c := startChild(t, nil,
		"serve", "--data-dir", dir, "--listen", "127.0.0.1:0", "--relay", world.RelayURL(), "--plc", world.PLCURL(),
		"--allow-private-hosts", "--host-rps", "10000", "--plc-rps", "10000", "--collection", sandbox.StatusCollection.String(),
	)
	c.log.wait(t, "msg=serving")
	var job jobNow
	late := time.After(endurance)
	for tick := time.Tick(time.Millisecond); job.ProcessedRepos == nil || int(*job.ProcessedRepos) < repos/2; {
		select {
		case <-tick:
			job = newestJob(t, dir)
		case <-late:
			t.Fatalf("half of the job is never done: %+v", job)
		}
	}
	if err := c.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	c.wait()
	until(t, "no request is under way", func() bool { // for what is asked is logged when it is answered
		busy := int64(0)
		for _, url := range world.HostURLs() {
			now, _ := world.InFlight(url)
			busy += now
		}
		return busy == 0
	})
	before := askedAbout(world)
	settled := settledIn(t, filepath.Join(dir, service.DatabaseFile))
	world.ResetRequests()

	s := serveIn(t, world, dir, "--collection", sandbox.StatusCollection.String())
	late = time.After(endurance)
	for tick := time.Tick(10 * time.Millisecond); job.Status == "running"; {
		select {
		case <-tick:
			job = newestJob(t, dir)
		case <-late:
			t.Fatalf("the job does not end: %+v", job)
		}
	}
	if job.Status != "completed" || job.Error != nil || int(*job.ProcessedRepos) != repos {
		t.Errorf("at the end: %+v", job)
	}
	if code := s.end(); code != exitOK {
		t.Errorf("ended with %d", code)
	}
	again, most := 0, refetchHosts*defaultReposPerHost+writerQueue+writerGroup
	for did := range askedAbout(world) {
		if settled[did] {
			t.Errorf("%s was settled, and is read again", did)
		}
		if before[did] {
			again++
		}
	}
	t.Logf("killed with %d of %d repos settled, %d asked about: %d of them again", len(settled), repos, len(before), again)
	if again > most {
		t.Errorf("%d repos are read again, at most %d can be in flight and in a group", again, most)
	}
	if len(settled) < repos/2 || len(settled) == repos || len(before) < len(settled) {
		t.Errorf("%d repos settled and %d asked about when the server was killed: that proves nothing", len(settled), len(before))
	}
}

// askedAbout are the repos whose rev the hosts were asked for.
func askedAbout(world *sandbox.World) map[string]bool {
	dids := map[string]bool{}
	for _, r := range world.Requests(func(r sandbox.Request) bool { return r.Method == repoStatus && r.Status == http.StatusOK }) {
		dids[r.DID] = true
	}
	return dids
}

// settledIn are the repos that the first job in a file has settled.
func settledIn(t *testing.T, path string) map[string]bool {
	t.Helper()
	s, err := store.Open(store.Config{Path: path, ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	dids := map[string]bool{}
	for after, more := syntax.DID(""), true; more; more = after != "" {
		list, next, err := s.Jobs.JobRepos(t.Context(), 1, after, 1000, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range list {
			if r.State == jobs.RepoSettled {
				dids[r.DID.String()] = true
			}
		}
		after = next
	}
	return dids
}
