package cmd

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"appview/cmd/service"
	"appview/cmd/term"
	"appview/internal/api"
	"appview/internal/sandbox"
	"appview/internal/sandbox/sandboxtest"
	"appview/internal/sandbox/zoo"
	"appview/store/index"
)

// TestHostileAccountIsBounded has a host make records of one account up without an end. It
// may take as much of the database as one may, over a kill, a retry and another job; all
// other repos are exact, and the job and its report say what became of this one.
func TestHostileAccountIsBounded(t *testing.T) {
	t.Parallel()
	noSignals(t)
	const most = index.LeastMaxAccountBytes
	world := sandboxtest.Start(t, sandbox.Config{Seed: 310, Repos: 12, Hosts: 3, Collections: []sandbox.Collection{
		{NSID: sandbox.StatusCollection, Share: 1, MinRecords: 3, MaxRecords: 3},
	}})
	liar, dir := world.Repos()[0].DID, t.TempDir()
	world.Assign(liar, zoo.EndlessRecords(100, 200))
	in := func(args ...string) []string { return append(args, "--data-dir", dir) }
	start := func() *child {
		c := startChild(t, nil, sandboxed(world, dir, "--max-account-bytes", fmt.Sprint(most))...)
		c.log.wait(t, "msg=serving")
		return c
	}
	ended := func(total, exact int) (records int64) {
		t.Helper()
		var job term.Job
		if err := json.Unmarshal([]byte(want(t, exitOK, "", nil, in("backfill", "show", "--json")...)), &job); err != nil {
			t.Fatal(err)
		}
		if job.Reasons["too_large"] != 1 || job.Reasons["exact"] != int64(exact) || *job.TotalRepos != int64(total) || *job.ProcessedRepos != int64(total) {
			t.Errorf("the job: %+v", job)
		}
		want(t, exitOK, "too_large", nil, in("backfill", "report")...)
		want(t, exitOK, "may take 2097152 (--max-account-bytes)", nil, in("backfill", "report", "--json")...)
		for _, repo := range world.Repos() {
			if lines := want(t, exitOK, "", nil, in("records", "export", "--did", repo.DID.String())...); repo.DID != liar && strings.Count(lines, "\n") != 3 {
				t.Errorf("%d records of %s, want 3", strings.Count(lines, "\n"), repo.DID)
			}
		}
		var st api.Stats
		if err := json.Unmarshal(ask(t, dir, "/admin/stats"), &st); err != nil {
			t.Fatal(err)
		}
		// A half more for the room in pages, and what all others and the jobs take.
		if used := st.Database.FileBytes - st.Database.FreeBytes; used > most*3/2+1<<20 {
			t.Errorf("%d bytes of the database are used, where one account may take %d", used, most)
		}
		return st.Collections[sandbox.StatusCollection].Records
	}
	c := start()
	want(t, exitOK, "1 too_large", nil, in("backfill", "create", "--watch", "--collection", sandbox.StatusCollection.String())...)
	records := ended(12, 11)
	if err := c.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	c.wait()
	c = start()
	want(t, exitOK, "1 too_large", nil, in("backfill", "retry", "--watch", newestJob(t, dir).ID)...)
	if again := ended(1, 0); again != records {
		t.Errorf("%d records after the retry, %d before", again, records)
	}
	want(t, exitOK, "1 too_large", nil, in("backfill", "create", "--watch", "--collection", sandbox.StatusCollection.String())...)
	if again := ended(12, 11); again != records {
		t.Errorf("%d records after another job, %d before", again, records)
	}
	status, text := page(t, strings.TrimSpace(read(t, filepath.Join(dir, service.URLFile)))+"/metrics")
	if line := `appview_repos_settled_total{class="failed",reason="too_large"} 3`; status != http.StatusOK || !strings.Contains(text, line) {
		t.Errorf("%d, without %s:\n%s", status, line, text)
	}
	// What it holds is given back when an administrator deletes it, and is proved by what stays.
	want(t, exitOK, "deleted", nil, in("records", "delete", "--yes", "--did", liar.String())...)
	c.terminate(exitOK)
	want(t, exitOK, "", nil, in("check")...)
}
