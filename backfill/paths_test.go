package backfill_test

import (
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/record"
	"appview/internal/sandbox"
	"appview/internal/sandbox/zoo"
	"appview/store"
	"appview/store/jobs"
	"appview/store/storetest"
)

// ended is what became of one repo in a job.
type ended struct {
	Class, Reason     string
	Records, Rejected int64
}

// ends are what became of the repos of a job.
func (r *rig) ends(job jobs.Job) map[syntax.DID]ended {
	r.t.Helper()
	all := map[syntax.DID]ended{}
	list, _, err := r.store.Jobs.JobRepos(r.t.Context(), job.Seq, "", 1000, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, repo := range list {
		all[repo.DID] = ended{repo.Class, repo.Reason, repo.Records, repo.Rejected}
		if repo.Reason == "rejected" && repo.Rejected == 0 {
			r.t.Errorf("%s is rejected, and nothing of it is", repo.DID)
		}
	}
	return all
}

// oddPaths are keys of repos' trees that are no record's path.
func oddPaths() []string {
	return []string{
		"com.example.note/a b", "com.example.note/.", "com.example.note/..", "com.example.note/", "com.example.note",
		"com.example.note/a/b", "com.example.note//a", "com.example.note/a%20b", "com.example.note/a\x00b",
		"com.example.note/\xff\xfe", "com.example.note/é", "com.example.note/" + strings.Repeat("k", 513),
		"com.example.note/" + strings.Repeat("k", 1100), // longer than a key of a tree may be
		"com.EXAMPLE.note/upper", "COM.example.note/upper", "com.example.no_te/under", "com.example.note./dot",
		"com.example.note-x/dash", "com.example/two", "com.exämple.note/a", "com.example.n\xffte/a",
		"com.example.note.x/a b", "com.example.not/..", "/com.example.note/a", "/", ".", "..",
	}
}

// wayOfReading is one of the ways in which a repo can be read.
type wayOfReading struct {
	name    string
	all     bool // collections
	listed  bool // the host offers no getRepo
	records int  // of each repo
}

// rejects are how many of some odd paths count as rejected. Of a collection that cannot
// be, a listing cannot count the records.
func (way wayOfReading) rejects(paths ...string) (n int64) {
	uncounted := map[string]bool{}
	for _, path := range paths {
		collection, _, _ := strings.Cut(path, "/")
		_, err := record.ParseCollection(collection)
		switch {
		case !way.all && collection != notes.String(), uncounted[collection]:
		default:
			uncounted[collection] = way.listed && err != nil
			n++
		}
	}
	return n
}

// TestPathsThatCannotBeEndAlikeInEveryWayOfReading has repos with odd paths: with sound
// records beside them, and with nothing else. Whichever way they are read, each path
// counts as rejected if the job covers it, and no record is lost for it.
func TestPathsThatCannotBeEndAlikeInEveryWayOfReading(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	for _, way := range []wayOfReading{
		{"listing a collection, then the whole repo", false, false, 5},
		{"listing a collection", false, true, 5},
		{"the whole repo", true, false, 5},
		{"listing all collections", true, true, 5},
		{"listing a collection of nothing else, then the whole repo", false, false, 0},
		{"listing a collection of nothing else", false, true, 0},
		{"the whole repo of nothing else", true, false, 0},
		{"listing all collections of nothing else", true, true, 0},
	} {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			odd := map[int][]string{}
			for i, path := range oddPaths() {
				odd[2*i], odd[2*i+1] = []string{path}, []string{path, path + "~ ", path + "~~ "}
			}
			way.read(t, len(odd)+1, odd)
		})
	}
}

// TestPathsThatCannotBeAreCountedOnceInSteps has repos that are committed in steps, by
// listing them and in one piece, with odd paths on the first page.
func TestPathsThatCannotBeAreCountedOnceInSteps(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	for _, way := range []wayOfReading{
		{"listing a collection", false, true, 1200},
		{"listing all collections", true, true, 1200},
		{"the whole repo", true, false, 6000},
		{"listing a collection, then the whole repo", false, false, 6000},
	} {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			odd := slices.DeleteFunc(oddPaths(), func(path string) bool { return len(path) > 1024 }) // that would cost the tree
			steps := way.read(t, 3, map[int][]string{0: {"com.example.note/a b"}, 1: odd})
			if steps < 3 {
				t.Errorf("%d steps, want one of each repo at least", steps)
			}
		})
	}
}

// read reads repos of which some have odd paths, by their number, and wants each to end
// as it should. It returns how many steps were committed.
func (way wayOfReading) read(t *testing.T, repos int, odd map[int][]string) int64 {
	t.Helper()
	var steps atomic.Int64
	hooks := store.Hooks{Making: func(op string) {
		if strings.HasPrefix(op, "save pages") {
			steps.Add(1)
		}
	}}
	r := newRigWith(t, sandbox.Config{Seed: 160, Repos: repos, Hosts: 1, Collections: []sandbox.Collection{
		{NSID: notes, Share: 1, MinRecords: way.records, MaxRecords: way.records},
	}}, options{store: store.Config{Hooks: hooks}})
	request, want, is := jobs.Request{}, map[syntax.DID]ended{}, map[syntax.DID][]string{}
	if !way.all {
		request.Collection = notes
	}
	if way.listed {
		listOnly(r.world, nil)
	}
	for i, repo := range r.world.Repos() {
		request.DIDs = append(request.DIDs, repo.DID)
		end := ended{"done", "exact", int64(way.records), way.rejects(odd[i]...)}
		switch {
		case end.Rejected > 0:
			end.Class, end.Reason = "failed", "rejected"
		case way.records == 0:
			end.Reason = "empty"
		}
		want[repo.DID], is[repo.DID] = end, odd[i]
		if len(odd[i]) > 0 {
			r.world.Assign(repo.DID, zoo.StrayPaths(odd[i]...))
		}
	}
	got := r.ends(r.complete(request))
	for did, w := range want {
		if got[did] != w {
			t.Errorf("%.80q: %+v, want %+v", is[did], got[did], w)
		}
	}
	r.wantTruth("")
	return steps.Load()
}
