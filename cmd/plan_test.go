package cmd

import (
	"encoding/json"
	"strings"
	"testing"

	"appview/internal/api"
	"appview/internal/sandbox"
)

func TestEstimatesHaveTwoDigits(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]int64{0: 0, 7: 7, 99: 99, 101: 100, 840: 840, 3369: 3400, 3350: 3400, 12_345: 12_000, 999_999: 1_000_000} {
		if got := roughly(n); got != want {
			t.Errorf("%d: %d, want %d", n, got, want)
		}
	}
}

func TestPlanTellsAndStartsNothing(t *testing.T) {
	t.Parallel()
	world, dir := newWorld(t), t.TempDir()
	s := serveIn(t, world, dir)
	in := func(args ...string) []string { return append([]string{"backfill", "plan", "--data-dir", dir}, args...) }
	status := sandbox.StatusCollection.String()
	out := want(t, exitOK, "bottleneck  ", nil, in("--collection", status)...)
	for _, text := range []string{
		"covers      " + status + "\n", ", by the relay's listing", "hosts       3\n", "if each repo has one page of records", "time        about 1s", "(the directory)", "(the relay)",
		"WHO ", world.HostURLs()[0] + "  ",
	} {
		if !strings.Contains(out, text) {
			t.Errorf("%q is not in:\n%s", text, out)
		}
	}
	if out = want(t, exitOK, "requests  ", nil, in("--collection", status, "--limit", "0")...); strings.Contains(out, "WHO") {
		t.Errorf("hosts are listed:\n%s", out)
	}
	var plan api.Plan
	if err := json.Unmarshal([]byte(want(t, exitOK, "", nil, in("--json")...)), &plan); err != nil || plan.Repos != 30 || plan.Scope != "network" || len(plan.PerHost) != 5 {
		t.Errorf("%v: %+v", err, plan)
	}
	if raw := want(t, exitOK, `"scope": "dids"`, nil, in("--json", "--did", "did:web:nobody.example")...); !strings.Contains(raw, `"targets": []`) {
		t.Errorf("no target is not []: %s", raw)
	}
	did := world.Repos()[0].DID.String()
	want(t, exitOK, "1, which are named", nil, in("--did", did)...)
	want(t, exitOK, "a host that is not known yet", nil, in("--did", did)...)
	want(t, exitOK, "look at how the collection is spelled", nil, in("--collection", "com.example.unheard")...)
	want(t, exitError, "collection is empty", nil, in("--collection", "")...)
	want(t, exitError, "no valid NSID", nil, in("--collection", "x")...)
	want(t, exitUsage, "--limit is -1", nil, in("--limit", "-1")...)
	want(t, exitOK, "no jobs", nil, "backfill", "list", "--data-dir", dir)
	world.SetRelay(sandbox.RelayNoCollections)
	want(t, exitError, "choose one that does with --relay", nil, in("--collection", status)...)
	world.SetRelay(sandbox.RelayDown)
	want(t, exitError, "check that the relay is up and reachable from here", nil, in("--collection", status)...)
	s.end()
}
