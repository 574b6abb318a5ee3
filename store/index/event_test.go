package index

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"

	"appview/internal/record"
	"appview/store/kv"
)

const (
	eventDID        = syntax.DID("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa")
	eventCollection = syntax.NSID("com.example.note")
)

// eventRig is an index that events and readings of one repo are applied to.
type eventRig struct {
	t   *testing.T
	x   *Index
	db  *kv.DB
	now time.Time
}

func newEventRig(t *testing.T, maxAccountBytes int64) *eventRig {
	t.Helper()
	r := &eventRig{t: t, x: New(maxAccountBytes), now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	cfg := kv.Config{Path: filepath.Join(t.TempDir(), "appview.db"), FlushEvery: time.Millisecond, Now: func() time.Time { return r.now }}
	db, err := kv.Open(cfg, kv.Join(10, r.x.Part()))
	if err != nil {
		t.Fatal(err)
	}
	r.db = db
	r.x.Use(db)
	t.Cleanup(func() {
		if err := errors.Join(db.Check(context.WithoutCancel(t.Context())), db.Close()); err != nil {
			t.Error(err)
		}
	})
	return r
}

func eventRev(n int) syntax.TID { return syntax.NewTIDFromInteger(uint64(n) + 1<<40) }

// numbered is the body of {"n":n}, of fewer than 24.
func numbered(tb testing.TB, n int) *record.Body {
	tb.Helper()
	block := []byte("\xa1\x61n" + string(rune(n)))
	id, err := cid.V1Builder{Codec: cid.DagCBOR, MhType: multihash.SHA2_256}.Sum(block)
	if err != nil {
		tb.Fatal(err)
	}
	body, err := record.FromJSON(fmt.Appendf(nil, `{"n":%d}`, n), id.String())
	if err != nil {
		tb.Fatal(err)
	}
	return &body
}

func (r *eventRig) put(rev int, rkey syntax.RecordKey, n int) Event {
	return Event{Collection: eventCollection, RKey: rkey, Rev: eventRev(rev), Body: numbered(r.t, n)}
}

func (r *eventRig) del(rev int, rkey syntax.RecordKey) Event {
	return Event{Collection: eventCollection, RKey: rkey, Rev: eventRev(rev)}
}

func (r *eventRig) apply(c Change) (Applied, error) {
	c.DID = eventDID
	return kv.Write(r.t.Context(), r.db, kv.Change{Op: "apply", Urgent: true}, func(tx *kv.Tx) (Applied, error) { return r.x.Apply(tx, c) })
}

// tell applies events in one change.
func (r *eventRig) tell(events ...Event) Told {
	r.t.Helper()
	a, err := r.apply(Change{Events: events})
	if err != nil {
		r.t.Fatal(err)
	}
	return a.Told
}

// read settles a complete reading that was probed at a rev, and has listed so much.
func (r *eventRig) read(rev int, listed map[syntax.RecordKey]int) Applied {
	r.t.Helper()
	seg := Segment{Collection: eventCollection}
	for _, rkey := range slices.Sorted(maps.Keys(listed)) {
		seg.Records = append(seg.Records, Listed{RKey: rkey, Body: *numbered(r.t, listed[rkey])})
	}
	a, err := r.apply(Change{
		Reading:  Reading{Host: "https://pds.example.com", Rev: eventRev(rev), Source: SourceListRecords, Segments: []Segment{seg}},
		Complete: []syntax.NSID{eventCollection}, Floor: eventRev(rev), Account: AccountActive,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return a
}

// held is what the index serves, by key.
func (r *eventRig) held() map[syntax.RecordKey]int {
	r.t.Helper()
	got := map[syntax.RecordKey]int{}
	_, err := r.x.RepoRecords(r.t.Context(), RepoPage{DID: eventDID, Collection: eventCollection, Limit: 1000}, func(rec *Record) error {
		got[rec.RKey] = int(rec.Body.Data[len(rec.Body.Data)-1])
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return got
}

func (r *eventRig) want(want map[syntax.RecordKey]int) {
	r.t.Helper()
	if got := r.held(); !maps.Equal(got, want) {
		r.t.Errorf("held: %v, want %v", got, want)
	}
}

func (r *eventRig) seq() uint64 {
	r.t.Helper()
	st, err := kv.Read(r.t.Context(), r.db, r.x.Stats)
	if err != nil {
		r.t.Fatal(err)
	}
	return st.Seq
}

// tombstones is how many there are.
func (r *eventRig) tombstones() (n int) {
	r.t.Helper()
	err := r.db.View(r.t.Context(), func(tx *kv.Tx) error {
		if b := tombstonesOf(tx, []byte(eventCollection)); b != nil {
			n = b.Stats().KeyN
		}
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return n
}

func TestEventsMoveTheIndexAndRepeatWithoutEffect(t *testing.T) {
	t.Parallel()
	r := newEventRig(t, 0)
	commit := []Event{r.put(3, "a", 1), r.put(3, "b", 2), r.del(3, "c")}
	if got := r.tell(commit...); got != (Told{Applied: 3}) {
		t.Errorf("told: %+v", got)
	}
	seq := r.seq()
	if got := r.tell(commit...); got != (Told{Contained: 3}) {
		t.Errorf("told again: %+v", got)
	}
	if got := r.tell(r.put(2, "a", 9), r.del(2, "b"), r.put(2, "c", 9)); got != (Told{Contained: 3}) {
		t.Errorf("told what is older: %+v", got)
	}
	if r.seq() != seq {
		t.Errorf("%d changes are in the log, want %d", r.seq(), seq)
	}
	r.want(map[syntax.RecordKey]int{"a": 1, "b": 2})
	r.tell(r.put(4, "a", 3), r.del(4, "b"), r.put(4, "c", 4))
	r.want(map[syntax.RecordKey]int{"a": 3, "c": 4})
	if n := r.tombstones(); n != 1 {
		t.Errorf("%d tombstones, want that of b", n)
	}
}

// TestDeletionOutlivesAPageThatStillHasTheRecord has a page read before the record was
// deleted, and settled after that: of a record that is held, and of one that is not.
func TestDeletionOutlivesAPageThatStillHasTheRecord(t *testing.T) {
	t.Parallel()
	for name, before := range map[string][]Event{"held": {{}}, "not held": nil} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newEventRig(t, 0)
			if before != nil {
				r.tell(r.put(1, "x", 1))
			}
			r.tell(r.del(5, "x"))
			if a := r.read(3, map[syntax.RecordKey]int{"x": 1, "y": 2}); !a.Guarded {
				t.Errorf("applied: %+v", a)
			}
			r.want(map[syntax.RecordKey]int{"y": 2})
			if n := r.tombstones(); n != 1 {
				t.Errorf("%d tombstones, want 1: only its rev is not read yet", n)
			}
			r.read(6, map[syntax.RecordKey]int{"x": 3, "y": 2}) // it was created again at 6
			r.want(map[syntax.RecordKey]int{"x": 3, "y": 2})
			if n := r.tombstones(); n != 0 {
				t.Errorf("%d tombstones, want none", n)
			}
		})
	}
}

// TestRecordThatIsTheSameAgainStays has its deletion missed, and its creation told. A listing
// that was begun in between has not found it.
func TestRecordThatIsTheSameAgainStays(t *testing.T) {
	t.Parallel()
	r := newEventRig(t, 0)
	r.tell(r.put(1, "x", 1))
	seq := r.seq()
	if got := r.tell(r.put(4, "x", 1)); got != (Told{Raised: 1}) {
		t.Errorf("told: %+v", got)
	}
	if r.seq() != seq {
		t.Error("what has not changed is in the log")
	}
	r.read(2, nil)
	r.want(map[syntax.RecordKey]int{"x": 1})
}

func TestEventBelowTheFloorIsContained(t *testing.T) {
	t.Parallel()
	r := newEventRig(t, 0)
	r.read(7, map[syntax.RecordKey]int{"x": 2})
	seq := r.seq()
	if got := r.tell(r.del(5, "x"), r.put(6, "x", 1), r.put(7, "x", 2), r.put(7, "y", 1)); got != (Told{Contained: 4}) {
		t.Errorf("told: %+v", got)
	}
	if r.seq() != seq {
		t.Error("it is in the log")
	}
	r.want(map[syntax.RecordKey]int{"x": 2})
}

// TestCommitThatNamesAKeyTwiceIsDisputed: which is the end cannot be told.
func TestCommitThatNamesAKeyTwiceIsDisputed(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		events func(r *eventRig) []Event
		want   Told
	}{
		"deleted and created": {func(r *eventRig) []Event { return []Event{r.del(3, "x"), r.put(3, "x", 2)} }, Told{Applied: 1, Disputed: 1}},
		"created and deleted": {func(r *eventRig) []Event { return []Event{r.put(3, "x", 2), r.del(3, "x")} }, Told{Applied: 1, Disputed: 1}},
		"updated twice":       {func(r *eventRig) []Event { return []Event{r.put(3, "x", 2), r.put(3, "x", 3)} }, Told{Applied: 1, Disputed: 1}},
		"updated alike":       {func(r *eventRig) []Event { return []Event{r.put(3, "x", 2), r.put(3, "x", 2)} }, Told{Applied: 1, Contained: 1}},
	} {
		for _, apart := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, apart %t", name, apart), func(t *testing.T) {
				t.Parallel()
				r := newEventRig(t, 0)
				r.tell(r.put(1, "x", 1))
				events, want := c.events(r), c.want
				if apart {
					r.tell(events[0])
					events, want.Applied = events[1:], want.Applied-1
				}
				if got := r.tell(events...); got != want {
					t.Errorf("told: %+v, want %+v", got, want)
				}
			})
		}
	}
}

func TestEventsOfAFullAccountAreLeft(t *testing.T) {
	t.Parallel()
	r := newEventRig(t, LeastMaxAccountBytes)
	var fill []Event
	for n := range 14_000 {
		fill = append(fill, r.put(1, syntax.RecordKey(fmt.Sprintf("k%06d", n)), 1))
	}
	told := r.tell(fill...)
	if told.Full == 0 || told.Applied == 0 || told.Applied+told.Full != len(fill) {
		t.Fatalf("told: %+v", told)
	}
	if got := r.tell(r.del(2, "unknown"), r.del(2, "k000000"), r.put(3, "k000000", 1)); got != (Told{Applied: 1, Full: 2}) {
		t.Errorf("told: %+v, want a deletion that frees room to be made", got)
	}
	repo, err := r.x.Repo(t.Context(), eventDID)
	if err != nil || repo.Bytes > LeastMaxAccountBytes {
		t.Errorf("it takes %d bytes, %v", repo.Bytes, err)
	}
}

// TestTombstonesOfARepoAreBounded has a source tell of more deletions than a repo's
// reading may have to look at. A complete reading makes room.
func TestTombstonesOfARepoAreBounded(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes long: go test without -short has it")
	}
	r := newEventRig(t, 0)
	var gone []Event
	for n := range maxTombstones + 10 {
		gone = append(gone, r.del(2, syntax.RecordKey(strconv.Itoa(n))))
	}
	if got := r.tell(gone...); got != (Told{Applied: maxTombstones, Full: 10}) {
		t.Errorf("told: %+v", got)
	}
	for range maxTombstones/maxRemovals + 1 {
		r.read(3, nil)
	}
	if n := r.tombstones(); n != 0 {
		t.Errorf("%d tombstones are left of what a reading has seen", n)
	}
	if got := r.tell(r.del(4, "one more")); got != (Told{Applied: 1}) {
		t.Errorf("told: %+v", got)
	}
}

func TestTombstonesAreForgottenWithTheirDeletions(t *testing.T) {
	t.Parallel()
	r := newEventRig(t, 0)
	r.tell(r.put(1, "x", 1))
	r.tell(r.del(2, "x"), r.del(2, "never held"))
	if err := r.x.IndexAll(t.Context()); err != nil { // which has to know of a deletion first
		t.Fatal(err)
	}
	for _, c := range []struct {
		days int
		want int
	}{{29, 2}, {2, 0}} {
		r.now = r.now.Add(time.Duration(c.days) * 24 * time.Hour)
		for range 40 { // the store's own clock follows in bounded steps
			r.tell(r.put(1, "clock", 1))
			if _, err := r.db.Prune(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if n := r.tombstones(); n != c.want {
			t.Errorf("%d tombstones after %d days more, want %d", n, c.days, c.want)
		}
	}
}

// TestEventsAndReadingsEndAlikeInEveryOrder lives the lives of a repo: its events come in
// order, some again and again, and readings go on beside them, each probed at one moment,
// listed at others, and settled at a later one. When everything has come, the index is the repo.
func TestEventsAndReadingsEndAlikeInEveryOrder(t *testing.T) {
	t.Parallel()
	lives := uint64(60)
	if testing.Short() {
		lives = 12
	}
	for seed := range lives {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			newRepoLife(t, rand.New(rand.NewPCG(seed, 0))).live()
		})
	}
}

// repoLife is a repo that changes: its states by rev, and the events of each.
type repoLife struct {
	r      *eventRig
	rng    *rand.Rand
	states []map[syntax.RecordKey]int
	events [][]Event
	told   int // the events up to there have come
	open   []openReading
}

// openReading is a reading that is not settled: what its pages have shown up to now.
type openReading struct {
	probe  int
	listed map[syntax.RecordKey]int
	toList []syntax.RecordKey
}

var lifeKeys = []syntax.RecordKey{"a", "b", "c", "d"} //nolint:gochecknoglobals // never changed

func newRepoLife(t *testing.T, rng *rand.Rand) *repoLife {
	t.Helper()
	return &repoLife{r: newEventRig(t, 0), rng: rng, states: []map[syntax.RecordKey]int{{}}, events: [][]Event{nil}}
}

func (l *repoLife) live() {
	for range 120 {
		switch l.rng.IntN(6) {
		case 0, 1:
			l.commit()
		case 2:
			l.tell(min(l.told+1+l.rng.IntN(3), len(l.events)-1))
		case 3:
			l.told = max(0, l.told-l.rng.IntN(4)) // the source goes back
		case 4:
			l.open = append(l.open, openReading{probe: len(l.states) - 1, listed: map[syntax.RecordKey]int{}, toList: slices.Clone(lifeKeys)})
		case 5:
			l.page()
		}
	}
	for len(l.open) > 0 {
		l.page()
	}
	l.tell(len(l.events) - 1)
	l.r.want(l.states[len(l.states)-1])
}

// commit changes some of the repo's records.
func (l *repoLife) commit() {
	rev, state := len(l.states), maps.Clone(l.states[len(l.states)-1])
	var events []Event
	for _, key := range lifeKeys {
		_, held := state[key]
		switch l.rng.IntN(5) {
		case 0:
			if held {
				delete(state, key)
				events = append(events, l.r.del(rev, key))
			}
		case 1:
			state[key] = l.rng.IntN(3)
			events = append(events, l.r.put(rev, key, state[key]))
		}
	}
	l.states, l.events = append(l.states, state), append(l.events, events)
}

// tell brings the events up to a rev.
func (l *repoLife) tell(upTo int) {
	for l.told < upTo {
		l.told++
		for _, e := range l.events[l.told] {
			if got := l.r.tell(e); got.Disputed+got.Full > 0 {
				l.r.t.Errorf("event %+v: %+v", e, got)
			}
		}
	}
}

// page goes on with one of the readings: it lists a key as it is now, or settles.
func (l *repoLife) page() {
	if len(l.open) == 0 {
		return
	}
	i := l.rng.IntN(len(l.open))
	o := &l.open[i]
	if len(o.toList) > 0 {
		key := o.toList[0]
		o.toList = o.toList[1:]
		if n, ok := l.states[len(l.states)-1][key]; ok {
			o.listed[key] = n
		}
		return
	}
	seg := Segment{Collection: eventCollection}
	for _, rkey := range slices.Sorted(maps.Keys(o.listed)) {
		seg.Records = append(seg.Records, Listed{RKey: rkey, Body: *numbered(l.r.t, o.listed[rkey])})
	}
	_, err := l.r.apply(Change{
		Reading:  Reading{Host: "https://pds.example.com", Rev: eventRev(o.probe), Source: SourceListRecords, Segments: []Segment{seg}},
		Complete: []syntax.NSID{eventCollection}, Floor: eventRev(o.probe), Account: AccountActive,
	})
	if err != nil && !errors.Is(err, ErrRevWentBack) { // another reading was probed later, and is settled
		l.r.t.Error(err)
	}
	l.open = slices.Delete(l.open, i, i+1)
}
