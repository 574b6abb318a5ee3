package backfill_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"appview/internal/api"
	"appview/internal/sandbox/zoo"
	"appview/store"
	"appview/store/jobs"
	"appview/store/storetest"
)

var errCrash = errors.New("injected crash")

// crash ends a process at one commit: at the nth of all, or at the nth that makes a
// change of a kind.
type crash struct {
	kinds []string
	kind  string // empty: any
	n     int
	after bool // the commit, not before it

	mu    sync.Mutex
	group []string // kinds of the changes of the commit that is being made
	seen  int
	fired bool
	met   map[string]int // commits that made a change of a kind
}

func (c *crash) hooks() store.Hooks {
	h := store.Hooks{Making: func(op string) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.group = append(c.group, kindOf(c.kinds, op))
	}}
	if c.after {
		h.AfterCommit = c.commit
	} else {
		h.BeforeCommit = c.commit
	}
	return h
}

func (c *crash) commit() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	slices.Sort(c.group)
	for _, k := range slices.Compact(c.group) {
		c.met[k]++
	}
	if c.kind == "" || slices.Contains(c.group, c.kind) {
		c.seen++
	}
	c.group = nil
	if c.fired = c.seen == c.n; c.fired {
		return errCrash
	}
	return nil
}

// lifetime is a life that can be lived again and again.
type lifetime struct {
	name    string
	make    func(*testing.T) *life
	proof   func(*testing.T, *life) // that the undisturbed life was what it is meant to be; nil: nothing
	apart   bool                    // it is for the kinds of commits that no other has
	resting []int                   // jobs during which the world does not change

	jobs    []jobs.Job     // of the undisturbed life
	kinds   map[string]int // its commits by kind
	commits int
}

// lifetimes are all lives, each lived once without a disturbance.
func lifetimes(t *testing.T, kinds []string) []*lifetime {
	t.Helper()
	whole := func(listed bool) func(*testing.T) *life {
		return func(t *testing.T) *life {
			t.Helper()
			l := newLife(t, lifeWorld(), acts, listed)
			l.must(l.grow())
			if !listed { // a listing with such paths deletes nothing, and the large repo changes
				l.world.Assign(l.did(0), zoo.StrayPaths("com.example.note/a b", "xyz.statusphere.status/..", "com.example.no_te/x"))
			}
			return l
		}
	}
	list := []*lifetime{
		{name: "listed", make: whole(true), resting: []int{1, 5, 6, 7, 8}},
		{name: "whole", make: whole(false), resting: []int{1, 5, 6, 7, 8}},
		{name: "hardship", apart: true, resting: []int{2}, make: func(t *testing.T) *life {
			t.Helper()
			return newLife(t, lifeWorld(), hardship, false)
		}},
		{
			name: "doubt", apart: true, resting: []int{1},
			make: func(t *testing.T) *life {
				t.Helper()
				l := newLife(t, doubtWorld(), doubt, false)
				l.begin()
				return l
			},
			proof: func(t *testing.T, l *life) {
				t.Helper()
				if n := again(l.world); n < 20 {
					t.Errorf("only %d repos were read anew", n)
				}
			},
		},
	}
	for _, l := range list {
		c := &crash{kinds: kinds, n: -1, met: map[string]int{}}
		one := l.make(t)
		if !one.live(c.hooks()) {
			t.Fatalf("%s: the undisturbed life does not come to its end", l.name)
		}
		if l.proof != nil {
			l.proof(t, one)
		}
		l.jobs, l.kinds, l.commits = one.verify(), c.met, c.seen
		if t.Failed() {
			t.Fatalf("%s: the undisturbed life ends wrong", l.name)
		}
	}
	return list
}

// TestJobSurvivesACrashAroundEveryCommit lives the whole life of an index again and
// again: jobs that find, look up and read, in both ways, repos that change, move and
// go, a large repo in pages, cancellation, retry, the deny list, deletions, upkeep. Each
// time the process ends at another commit, before it or after it, and the next one
// goes on. At the end the index must hold what the world holds, and the jobs must
// have counted what those of a life without a disturbance have.
//
// It does so at a commit of every kind that the store can make; with SOAK_SEEDS set,
// at every commit.
func TestJobSurvivesACrashAroundEveryCommit(t *testing.T) {
	t.Parallel()
	kinds := commitKinds(t)
	lives := lifetimes(t, kinds)
	if storetest.Soaking(t) > 0 {
		for _, l := range lives {
			for _, when := range []string{"before", "after"} {
				t.Run(l.name+" "+when, func(t *testing.T) {
					t.Parallel()
					l.sweep(t, kinds, when == "after")
				})
			}
		}
		return
	}
	for i, kind := range kinds {
		if (underRace || testing.Short()) && i%4 != 0 {
			continue // each life takes ten times as long
		}
		var met []*lifetime
		for _, l := range lives {
			if l.kinds[kind] > 0 && (len(met) == 0 || !l.apart) {
				met = append(met, l)
			}
		}
		if len(met) == 0 {
			t.Errorf("no life has a commit that does %q: it needs another act", kind)
			continue
		}
		// In turns: with repos listed or whole, before the commit or after it, at the
		// first of its kind or in the middle.
		l, n, after := met[i/2%len(met)], 1, i%2 == 1
		if i%3 > 0 {
			n = (l.kinds[kind] + 1) / 2
		}
		t.Run(strings.ReplaceAll(strings.TrimSpace(kind), " ", "-"), func(t *testing.T) {
			t.Parallel()
			at := func(n int) bool {
				return l.again(t, &crash{kinds: kinds, kind: kind, n: n, after: after, met: map[string]int{}})
			}
			// Changes may have come together in fewer commits than before.
			if !at(n) && (n == 1 || !at(1)) {
				t.Errorf("%s: there is no commit that does %q", l.name, kind)
			}
		})
	}
}

// sweep lives the life once for every commit of it.
func (l *lifetime) sweep(t *testing.T, kinds []string, after bool) {
	t.Helper()
	for n := 1; ; n++ {
		if !l.again(t, &crash{kinds: kinds, n: n, after: after, met: map[string]int{}}) {
			if n < l.commits*3/4 {
				t.Errorf("only %d commits were hit, of about %d", n-1, l.commits)
			}
			t.Logf("%d crashes", n-1)
			return
		}
		if t.Failed() {
			return
		}
	}
}

// again lives the life with a crash, and reports whether that came.
func (l *lifetime) again(t *testing.T, c *crash) bool {
	t.Helper()
	one := l.make(t)
	if one.live(c.hooks()) {
		return false
	}
	if at := one.acts[one.at].name; !one.live(store.Hooks{}) {
		t.Fatalf("after the crash in act %q the life does not come to its end", at)
	}
	where := fmt.Sprintf("%s, commit %d (%s), after it: %t", l.name, c.n, c.kind, c.after)
	got := one.verify()
	if len(got) != len(l.jobs) {
		t.Fatalf("%s: %d jobs, want %d", where, len(got), len(l.jobs))
	}
	for i, want := range l.jobs {
		switch j := got[i]; {
		case j.Status != want.Status:
			t.Errorf("%s: job %d is %s: %s", where, j.Seq, j.Status, j.Error)
		case slices.Contains(l.resting, int(j.Seq)):
			wantCounters(t, j, want)
		case j.Status == api.StatusCompleted && (j.Processed != j.TotalRepos || j.Failed != want.Failed):
			t.Errorf("%s: job %d: %+v", where, j.Seq, j)
		}
	}
	if t.Failed() {
		t.Fatal(where)
	}
	return true
}
