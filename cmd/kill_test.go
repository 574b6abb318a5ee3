package cmd

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"appview/internal/sandbox"
	"appview/internal/sandbox/sandboxtest"
)

const (
	byCollection = "com.atproto.sync.listReposByCollection"
	listRecords  = "com.atproto.repo.listRecords"
)

// jobNow is what the kill test looks at of a job.
type jobNow struct {
	ID             string   `json:"id"`
	Status         string   `json:"status"`
	Stage          string   `json:"stage"`
	Error          *string  `json:"error"`
	TotalRepos     *float64 `json:"total_repos"`
	ProcessedRepos *float64 `json:"processed_repos"`
}

// ask gets an admin answer from the server on a data directory.
func ask(t *testing.T, dir, path string) []byte {
	t.Helper()
	return called(t, dir, http.MethodGet, path)
}

// called is what the server on a data directory answers its administrator.
func called(t *testing.T, dir, method, path string) []byte {
	t.Helper()
	client, err := (&program{}).newClient(clientOptions{dataDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	data, err := client.call(t.Context(), method, path, nil)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// newestJob is the job that was created last.
func newestJob(t *testing.T, dir string) (job jobNow) {
	t.Helper()
	var jobs []jobNow
	if err := json.Unmarshal(ask(t, dir, "/admin/backfill/status"), &jobs); err != nil || len(jobs) == 0 {
		t.Fatalf("jobs: %v, %v", jobs, err)
	}
	return jobs[0]
}

// counted is everything that is counted of the newest job.
func counted(t *testing.T, dir string) map[string]any {
	t.Helper()
	var all map[string]any
	if err := json.Unmarshal(ask(t, dir, "/admin/backfill/"+newestJob(t, dir).ID), &all); err != nil {
		t.Fatal(err)
	}
	maps.DeleteFunc(all, func(name string, _ any) bool {
		return !strings.HasSuffix(name, "_repos") && !strings.HasSuffix(name, "_records")
	})
	return all
}

// exported is what the index serves: uri → cid.
func exported(t *testing.T, dir string) map[string]string {
	t.Helper()
	got := map[string]string{}
	lines := bufio.NewScanner(strings.NewReader(want(t, exitOK, "", nil, "records", "export", "--data-dir", dir)))
	for lines.Scan() {
		var rec struct{ URI, CID string }
		if err := json.Unmarshal(lines.Bytes(), &rec); err != nil {
			t.Fatal(err)
		}
		got[rec.URI] = rec.CID
	}
	return got
}

// TestKilledInEveryStage kills the server in each stage of a job and wants, at
// the end, the records of the world, the counters of a job that nothing
// disturbed, and a discovery that did not begin anew.
func TestKilledInEveryStage(t *testing.T) {
	t.Parallel()
	world := sandboxtest.Start(t, sandbox.Config{
		Seed: 41, Repos: 2200, Hosts: 12, LargeRepos: 1,
		Collections: []sandbox.Collection{{NSID: sandbox.StatusCollection, Share: 1, MinRecords: 0, MaxRecords: 4}},
	})
	args := func(dir string) []string {
		return []string{
			"serve", "--data-dir", dir, "--listen", "127.0.0.1:0", "--relay", world.RelayURL(), "--plc", world.PLCURL(),
			"--allow-private-hosts", "--host-rps", "10000", "--plc-rps", "10000", "--collection", sandbox.StatusCollection.String(),
		}
	}
	last := world.Repos()[2100].DID.String()
	dir := t.TempDir()
	nextPage := func(r sandbox.Request) bool { return r.Method == byCollection && r.Cursor != "" }
	for _, kill := range []struct {
		stage string
		pages int64 // of records that hosts may serve before they hang
		hold  func(sandbox.Request) bool
	}{
		{"discovering_repos", 0, nextPage},
		{"discovering_repos", 300, nextPage},
		{"resolving_pds", 300, func(r sandbox.Request) bool { return r.Part == sandbox.PartPLC && r.DID == last }},
		{"fetching_records", 600, nil},
		{"fetching_records", 600, nil},
	} {
		var held, pages atomic.Int64
		world.SetFault(func(r sandbox.Request) sandbox.Fault {
			late := r.Method == listRecords && pages.Add(1) > kill.pages
			if late || (kill.hold != nil && kill.hold(r)) {
				held.Add(1)
				return sandbox.Fault{Hang: true}
			}
			return sandbox.Fault{}
		})
		c := startChild(t, nil, args(dir)...)
		c.log.wait(t, "msg=serving")
		var job jobNow
		until(t, fmt.Sprintf("%s with %d pages served", kill.stage, kill.pages), func() bool {
			job = newestJob(t, dir)
			return job.Stage == kill.stage && job.TotalRepos != nil && held.Load() > 0 && pages.Load() >= kill.pages
		})
		if job.Status != "running" || job.Error != nil {
			t.Errorf("before the kill: %+v", job)
		}
		if err := c.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		c.wait()
	}
	world.SetFault(nil)
	finish := func(dir string) map[string]any {
		s := serveIn(t, world, dir, "--collection", sandbox.StatusCollection.String())
		s.log.wait(t, `msg="job ended"`)
		if job := newestJob(t, dir); job.Status != "completed" || job.Error != nil {
			t.Errorf("at the end: %+v", job)
		}
		got, truth := exported(t, dir), truthOf(world)
		if !maps.Equal(got, truth) {
			t.Errorf("%d records served, the world has %d, or some differ", len(got), len(truth))
		}
		counters := counted(t, dir)
		if code := s.end(); code != exitOK {
			t.Errorf("ended with %d", code)
		}
		want(t, exitOK, "", nil, "check", "--data-dir", dir)
		return counters
	}
	killed := finish(dir)
	begun := world.Requests(func(r sandbox.Request) bool {
		return r.Method == byCollection && r.Cursor == "" && r.Status == http.StatusOK
	})
	if len(begun) != 1 {
		t.Errorf("discovery was begun %d times", len(begun))
	}
	undisturbed := finish(filepath.Join(t.TempDir(), "undisturbed"))
	if !maps.Equal(killed, undisturbed) {
		t.Errorf("counters after the kills: %v\nof an undisturbed job:   %v", killed, undisturbed)
	}
}
