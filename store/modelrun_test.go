package store_test

import (
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/store"
	"appview/store/storetest"
)

// bed holds a store beside its model.
type bed struct {
	t        *testing.T
	path     string
	s        *store.Store
	m        *model
	together bool // changes are queued without waiting for their answers
	open     []answer
	met      *census

	crash    atomic.Int32 // where the process ends: 0 nowhere, or one of the following
	passing  atomic.Int32 // commits that come before that
	crashed  atomic.Bool
	crashing bool // answers are not looked at
}

// Where a process may end.
const (
	beforeCommit = 1
	afterCommit  = 2
)

var errModelCrash = errors.New("injected crash")

// at is the hook around a commit.
func (b *bed) at(where int32) func() error {
	return func() error {
		if b.crash.Load() != where || b.passing.Add(-1) >= 0 {
			return nil
		}
		b.crash.Store(0)
		b.crashed.Store(true)
		return errModelCrash
	}
}

// census counts what became of changes of each kind, over all seeds.
type census struct {
	mu  sync.Mutex
	met map[string]int
}

// expected are outcomes without which the random changes would prove little.
var expected = []string{
	"create job", "start job", "discover", "discover: no longer owed", "discover held", "discover retry", "end discovery",
	"rehost", "rehost: no longer owed", "postpone", "put host", "save", "save: no longer owed",
	"save: the host's rev is older than what the index holds", "save: on the deny list", "restart",
	"save: the account would take too much of the database", "settle as too large",
	"settle", "settle: no longer owed", "settle: the host's rev is older than what the index holds",
	"settle: the short page is not the end of the listing", "settle as it is kept",
	"settle as it is kept: what the index holds of the account is not what it was when this was begun", "settle host", "reopen", "move to cancelling", "move to pausing", "move to running", "move to cancelling: job cannot do that now",
	"move to pausing: job cannot do that now", "move to running: job cannot do that now",
	"finish", "retry", "retry: job cannot do that now", "retry: nothing is left to do", "deny", "allow", "allow: not found",
	"delete records", "delete records: name a collection or a did", "track", "add collection", "cover collection",
	"cover collection: an unfinished job covers it", "cover collection: not found", "remove collection",
	"remove collection: an unfinished job covers it", "put key", "put key: it is there already", "revoke key", "index keys",
	"ended completed", "ended failed", "ended cancelled", "crashed before a commit", "crashed after a commit",
}

func (c *census) note(what string, err error) {
	if err != nil {
		what += ": " + err.Error()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.met[what]++
}

func (c *census) complete(t *testing.T) {
	t.Helper()
	for _, what := range expected {
		if c.met[what] == 0 {
			t.Errorf("the random changes never came to %q", what)
		}
	}
}

// answer is one that a change is to be given.
type answer struct {
	what string
	want error
	got  chan error
}

// openWith closes the store, proves that its file is in order, and opens it again
// with so many rows to a transaction, 0 for as many as usual.
func (b *bed) openWith(step int) {
	b.t.Helper()
	b.close()
	b.m.step = step
	s, err := store.Open(store.Config{
		Path: b.path, FlushEvery: 2 * time.Millisecond, Now: func() time.Time { return b.m.now }, MaxAccountBytes: b.m.limit,
		Log:   slog.New(slog.DiscardHandler),
		Hooks: store.Hooks{Step: step, BeforeCommit: b.at(beforeCommit), AfterCommit: b.at(afterCommit)},
	})
	if err != nil {
		b.t.Fatal(err)
	}
	b.s = s
	b.touch()
}

// touch makes a commit that changes nothing, by which the store looks at the clock.
func (b *bed) touch() {
	b.t.Helper()
	if err := b.s.Index.Allow(b.t.Context(), "nobody"); !errors.Is(err, store.ErrNotFound) {
		b.t.Errorf("allow nobody: %v", err)
	}
}

func (b *bed) close() {
	b.t.Helper()
	if b.s == nil {
		return
	}
	if err := b.s.Close(); err != nil {
		b.t.Fatal(err)
	}
	b.s = nil
	storetest.Check(b.t, b.path)
}

// same fails if a change was answered otherwise than the model says.
func (b *bed) same(what string, err, want error, got, wanted string) {
	b.t.Helper()
	if b.crashing {
		return
	}
	b.met.note(what, want)
	switch {
	case want == nil && err != nil, want != nil && err == nil:
		b.t.Errorf("%s: answered %v, want %v", what, err, want)
	case want != nil && !errors.Is(want, errOther) && !errors.Is(err, want):
		b.t.Errorf("%s: answered %v, want %v", what, err, want)
	case want == nil && got != wanted:
		b.t.Errorf("%s: returned %s, want %s", what, got, wanted)
	}
}

// submit queues a change, and waits for its answer unless there are more to come.
func (b *bed) submit(what string, want error, send func(done func(error)) error) {
	b.t.Helper()
	a := answer{what: what, want: want, got: make(chan error, 1)}
	if err := send(func(err error) { a.got <- err }); err != nil {
		b.t.Fatalf("%s: %v", what, err)
	}
	if b.open = append(b.open, a); !b.together {
		b.answers()
	}
}

func (b *bed) answers() {
	b.t.Helper()
	for _, a := range b.open {
		b.same(a.what, <-a.got, a.want, "", "")
	}
	b.open = nil
}

// compare proves that the store is what the model says, and that its file is in
// order.
func (b *bed) compare(page int) {
	b.t.Helper()
	look(b.t, b.s, b.m.collections(), page).differ(b.t, b.m.picture())
	if err := b.s.Check(b.t.Context()); err != nil {
		b.t.Errorf("check: %v", err)
	}
}

// TestStoreIsWhatItsModelSays makes random changes to a store and to a model of it
// in plain maps, and compares after every few everything that can be read. In between
// the store is closed and opened again, at times with transactions so small that
// most changes need several of them, and at times because the process ended around
// the commit of a change: then all of it must be there, or nothing.
func TestStoreIsWhatItsModelSays(t *testing.T) {
	t.Parallel()
	met := &census{met: map[string]int{}}
	seeds, changes := storetest.Seeds(t, enoughSeeds), 400
	n := storetest.Soaking(t)
	if n > 0 {
		changes = 1500
	}
	if n >= enoughSeeds || (n == 0 && len(seeds) > 1) {
		t.Cleanup(func() { met.complete(t) })
	}
	for _, seed := range seeds {
		t.Run(seed.String(), func(t *testing.T) {
			t.Parallel()
			drives(t, seed, met, changes)
		})
	}
}

// enoughSeeds meet everything that is expected, as they were chosen.
const enoughSeeds = 6

func drives(t *testing.T, seed storetest.Seed, met *census, changes int) {
	t.Helper()
	d := &drive{
		bed:   bed{t: t, path: filepath.Join(t.TempDir(), "appview.db"), m: newModel(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)), met: met},
		rng:   seed.Rand(),
		truth: map[syntax.DID][]snapshot{},
	}
	defer d.close()
	d.openWith(0)
	d.opCreate()
	d.opStart()
	total := 0
	for _, s := range steps {
		total += s.weight
	}
	for n := 1; n <= changes; n++ {
		d.trace = append(d.trace, d.next(total))
		if d.often(40) || n == changes {
			d.compare(1 + d.rng.IntN(5))
		}
		if t.Failed() {
			t.Fatalf("after change %d of seed %s:\n%s", n, seed, strings.Join(d.trace[max(0, n-12):], "\n"))
		}
	}
	for _, j := range d.m.jobs {
		met.note("ended "+string(j.Status), nil)
	}
}

// next makes one random change.
func (d *drive) next(total int) string {
	dice := d.rng.IntN(total)
	for _, s := range steps {
		if dice -= s.weight; dice < 0 {
			return s.do(d)
		}
	}
	return ""
}
