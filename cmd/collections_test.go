package cmd

import (
	"encoding/json"
	"strings"
	"testing"

	"appview/cmd/term"
	"appview/internal/sandbox"
)

func TestCollectionsAtRunTime(t *testing.T) {
	t.Parallel()
	world, dir := newWorld(t), t.TempDir()
	note, status := sandbox.NoteCollection.String(), sandbox.StatusCollection.String()
	s := serveIn(t, world, dir, "--collection", status)
	at := func(args ...string) []string { return append(args, "--data-dir", dir) }
	s.log.wait(t, `msg="job ended"`)
	spelt := strings.Replace(note, "example", "EXAMPLE", 1)
	want(t, exitOK, note+" is tracked, and being read by job ", nil, at("collections", "add", spelt)...)
	until(t, "the collection is read", func() bool {
		_, listed, _ := runs(t, nil, at("collections", "list")...)
		return strings.Count(listed, " completed") == 2
	})
	want(t, exitOK, "is tracked already", nil, at("collections", "add", note)...)
	listed := want(t, exitOK, "under a minute", nil, at("collections", "list")...)
	if strings.Count(listed, "Z") != 2 { // when each is read again
		t.Errorf("listed:\n%s", listed)
	}
	if stats := want(t, exitOK, "AGE", nil, at("stats")...); strings.Count(stats, "under a minute") != 2 {
		t.Errorf("stats:\n%s", stats)
	}
	want(t, exitOK, note+" is tracked no more", nil, at("collections", "remove", spelt, "--records", "delete", "--yes")...)
	want(t, exitOK, "its records are kept", nil, at("collections", "remove", status, "--records", "keep")...)
	want(t, exitError, "is not tracked", nil, at("collections", "remove", status, "--records", "keep")...)
	want(t, exitOK, "no collection is tracked", nil, at("collections", "list")...)
	if stats := want(t, exitOK, "AGE", nil, at("stats")...); strings.Contains(stats, note+" ") || !strings.Contains(stats, status+" ") {
		t.Errorf("stats:\n%s", stats)
	}
	s.end()

	// The settings win: what they name is tracked again, and read if it is not there.
	s = serveIn(t, world, dir, "--collection", spelt+","+status+","+note)
	s.log.wait(t, `msg="job ended"`)
	var jobs []struct{ ID, Collection string }
	if err := json.Unmarshal([]byte(want(t, exitOK, "[", nil, at("backfill", "list", "--json")...)), &jobs); err != nil || len(jobs) != 3 || jobs[0].Collection != note {
		t.Fatalf("jobs: %+v, %v", jobs, err)
	}
	want(t, exitOK, "the start of the server", nil, at("backfill", "show", jobs[0].ID)...)
	if listed := want(t, exitOK, note, nil, at("collections", "list")...); !strings.Contains(listed, status) {
		t.Errorf("listed:\n%s", listed)
	}
	s.end()
}

func TestAgesAreReadable(t *testing.T) {
	t.Parallel()
	for seconds, text := range map[int64]string{0: "under a minute", 60: "1m", 3599: "59m", 3600: "1h", 86399: "23h59m", 172800: "2d", 1e7: "115d17h"} {
		if got := term.Age(&seconds); got != text {
			t.Errorf("%d: %s", seconds, got)
		}
	}
	if got := term.Age(nil); got != "never read" {
		t.Errorf("nil: %s", got)
	}
}
