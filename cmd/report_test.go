package cmd

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"appview/cmd/term"
	"appview/internal/sandbox"
)

func TestOperatorSeesWhatAJobCameToAndRetriesIt(t *testing.T) {
	t.Parallel()
	world, dir := newWorld(t), t.TempDir()
	i := slices.IndexFunc(world.Repos(), func(r sandbox.Repo) bool { return len(world.TruthOf(r.DID, sandbox.StatusCollection)) > 0 })
	if err := world.Deactivate(world.Repos()[i].DID); err != nil {
		t.Fatal(err)
	}
	s := serveIn(t, world, dir)
	in := func(args ...string) []string { return append(args, "--data-dir", dir) }
	status := sandbox.StatusCollection.String()
	hang(world)
	id := strings.Fields(want(t, exitOK, "created job ", nil, in("backfill", "create", "--collection", status)...))[2]
	until(t, "all repos have been looked up", func() bool {
		_, stdout, _ := runs(t, nil, in("backfill", "hosts", id)...)
		return strings.Count(stdout, "active") == len(world.HostURLs()) && world.Faults("") > 0
	})
	want(t, exitError, "is running: only a job that has ended can be retried", nil, in("backfill", "retry", id)...)
	want(t, exitOK, "job "+id+" stops", nil, in("backfill", "cancel", id)...)
	want(t, exitError, "is cancelled", nil, in("backfill", "watch", id)...)
	want(t, exitOK, "stopped", nil, in("backfill", "hosts", id)...)
	want(t, exitOK, "pending  -", nil, in("backfill", "report", id)...)

	world.SetFault(nil)
	retried := want(t, exitOK, "retry of   "+id, nil, in("backfill", "retry", "--watch", id)...)
	id = strings.Fields(retried[strings.Index(retried, "\njob "):])[1]
	var shown term.Job
	if err := json.Unmarshal([]byte(want(t, exitOK, "", nil, in("backfill", "show", "--json", id)...)), &shown); err != nil || shown.UnavailableRepos != 1 {
		t.Fatalf("%v %+v", err, shown)
	}
	total := *shown.TotalRepos
	want(t, exitError, "has read every repo: nothing is left to do", nil, in("backfill", "retry", id)...)

	report := want(t, exitOK, "CLASS ", nil, in("backfill", "report", id)...)
	for _, text := range []string{"exact", "unavailable  deactivated", fmt.Sprintf("\n%d repos, %s records\n", total, term.Number(shown.TotalRecords))} {
		if !strings.Contains(report, text) {
			t.Errorf("%q is not in:\n%s", text, report)
		}
	}
	lines := want(t, exitOK, `"class":"exact"`, nil, in("backfill", "report", "--json", id)...)
	file := filepath.Join(t.TempDir(), "report.ndjson")
	want(t, exitOK, fmt.Sprintf("wrote %d repos to %s", total, file), nil, in("backfill", "report", id, "-o", file)...)
	if int64(strings.Count(lines, "\n")) != total || read(t, file) != lines {
		t.Errorf("%d lines, want %d:\n%s", strings.Count(lines, "\n"), total, lines)
	}

	want(t, exitOK, "unavailable  deactivated", nil, in("backfill", "repos", id, "--state", "unavailable")...)
	page := want(t, exitOK, "there may be more: --cursor ", nil, in("backfill", "repos", id, "--limit", "2")...)
	cursor := strings.Fields(page[strings.Index(page, "--cursor"):])[1]
	rest := want(t, exitOK, "", nil, in("backfill", "repos", id, "--cursor", cursor, "--limit", "5000")...)
	if got := strings.Count(page, "did:plc:") + strings.Count(rest, "did:plc:"); int64(got) != total {
		t.Errorf("%d repos in two lists, want %d:\n%s%s", got, total, page, rest)
	}
	var list rawRepos
	if err := json.Unmarshal([]byte(want(t, exitOK, "", nil, in("backfill", "repos", "--json", id)...)), &list); err != nil || int64(len(list.Repos)) != total || list.Cursor != "" {
		t.Errorf("--json: %v, %d repos", err, len(list.Repos))
	}
	want(t, exitError, "state \"settled\" is none of", nil, in("backfill", "repos", id, "--state", "settled")...)
	want(t, exitUsage, "--limit is 0", nil, in("backfill", "repos", id, "--limit", "0")...)
	want(t, exitOK, "done", nil, in("backfill", "hosts", id)...)
	want(t, exitOK, `"pds_endpoints"`, nil, in("backfill", "hosts", "--json", id)...)
	for _, command := range []string{"retry", "repos", "hosts", "report"} {
		want(t, exitError, "there is no job", nil, in("backfill", command, "7")...)
	}
	s.end()
}

func TestDenylistCommands(t *testing.T) {
	t.Parallel()
	world, dir := newWorld(t), t.TempDir()
	s := serveIn(t, world, dir)
	in := func(args ...string) []string { return append(args, "--data-dir", dir) }
	want(t, exitOK, "nothing is denied", nil, in("denylist", "list")...)
	want(t, exitOK, "completed", nil, in("backfill", "create", "--watch")...)
	repo := world.Repos()[0]
	did, host := repo.DID.String(), strings.TrimPrefix(world.HostURLs()[1], "http://")
	if code, _, _ := runs(t, nil, in("denylist", "add", did)...); code == exitOK { // nobody is there to ask
		t.Error("denied without a word")
	}
	want(t, exitOK, "denied account "+did, nil, in("denylist", "add", "--yes", did, "--reason", "asked for it")...)
	want(t, exitOK, `"entry": "`+host+`"`, nil, in("denylist", "add", "--yes", "--json", world.HostURLs()[1])...)
	want(t, exitError, "neither a DID nor the name of a host", nil, in("denylist", "add", "--yes", "*.example.com")...)
	want(t, exitOK, "asked for it", nil, in("denylist", "list")...)
	want(t, exitOK, `"added_at"`, nil, in("denylist", "list", "--json")...)
	want(t, exitOK, "", nil, in("backfill", "create", "--watch")...)
	left := 0
	for _, r := range world.Repos() {
		if r.DID != repo.DID && r.Host != world.HostURLs()[1] {
			left += len(world.TruthOf(r.DID))
		}
	}
	if n := strings.Count(want(t, exitOK, "", nil, in("records", "export")...), "\n"); n != left {
		t.Errorf("%d records, want %d", n, left)
	}
	want(t, exitOK, "host "+host+" is denied no more", nil, in("denylist", "remove", host)...)
	want(t, exitOK, `"entry": "`+did+`"`, nil, in("denylist", "remove", "--json", did)...)
	want(t, exitError, did+" is not on the deny list", nil, in("denylist", "remove", did)...)
	want(t, exitOK, "", nil, in("backfill", "create", "--watch")...)
	if n := strings.Count(want(t, exitOK, "", nil, in("records", "export")...), "\n"); n != len(world.Truth()) {
		t.Errorf("%d records, want %d", n, len(world.Truth()))
	}
	s.end()
}

func TestReportThatBreaksOffIsAnError(t *testing.T) {
	t.Parallel()
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("{\"class\":\"exact\"}\n{}\n"))
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}))
	defer other.Close()
	args := []string{"backfill", "report", "7", "--url", other.URL, "--key", testKey}
	want(t, exitError, "the report broke off after 2 repos", nil, args...)
	want(t, exitError, "the report broke off after 2 repos", nil, append(args, "--json")...)
	out := filepath.Join(t.TempDir(), "out")
	want(t, exitError, "the report broke off after 2 repos", nil, append(args, "-o", out)...)
	if left, err := filepath.Glob(out + "*"); err != nil || len(left) != 0 {
		t.Errorf("a part was left: %v %v", left, err)
	}
}
