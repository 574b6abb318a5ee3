package store_test

import (
	"cmp"
	"errors"
	"maps"
	"net/url"
	"slices"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/google/uuid"

	"appview/internal/api"
	"appview/internal/record"
	"appview/store"
	"appview/store/admin"
	"appview/store/index"
	"appview/store/jobs"
)

// model is what a store is to hold after the same changes: the rules of the store
// in plain maps, with no keys, indexes, groups or kept counts to get wrong.
type model struct {
	now        time.Time                        // by the wall clock
	steady     time.Time                        // by the store's own
	step       int                              // rows of a transaction, as in store.Hooks
	limit      int64                            // what an account may take of the file; 0: more than any does
	seq        uint64                           // of the last change
	repos      []*modelRepo                     // in the order of their numbers
	deletions  map[syntax.NSID][]store.Deletion // that are kept, in order
	denied     map[string]string                // entry → reason
	distrusted map[string]bool                  // hosts whose short pages are not the end
	tracked    map[syntax.NSID]bool
	keys       map[string]*admin.APIKey // by secret
	jobs       []*modelJob              // in order of creation
	ended      int                      // jobs that have ended
	deleted    map[syntax.NSID]uint64   // jobs that there were when a collection was deleted
	events     []admin.Event
}

type modelRepo struct {
	number     uint32 // 0 while it has none
	did        syntax.DID
	host       string
	account    string
	notFoundAt time.Time
	floor      syntax.TID
	held       map[syntax.NSID]*modelHeld
}

type modelHeld struct {
	floor   syntax.TID
	records map[syntax.RecordKey]index.Record
	exact   map[syntax.RecordKey]index.Record // as they were when they were seen to be all, at floor; nil: never
	assumed string                            // host of which an end was assumed then; empty: none was
}

// exactness is what is known as long as nothing has changed since all was seen.
func (h *modelHeld) exactness() index.Exactness {
	switch {
	case h.exact == nil || !maps.EqualFunc(h.records, h.exact, func(a, b index.Record) bool { return a.Seq == b.Seq }):
		return index.ExactUnknown
	case h.assumed != "":
		return index.ExactAssumed
	default:
		return index.ExactProved
	}
}

type modelJob struct {
	jobs.Job

	work    map[syntax.DID]*modelWork
	hosts   map[string]*modelHost
	cursors map[string]jobs.Cursor
	held    heldWalk
	retry   retryWalk
	end     int  // its place among the jobs that have ended, from 1
	forgot  bool // its work is pruned
	gone    bool // it is pruned itself
}

// modelHost is what is noted of a host. What its repos add up to is not.
type modelHost struct {
	ends, longest int
	behaviour     jobs.Behaviour
}

// heldWalk and retryWalk are how far a job has looked for repos that the index
// holds, and that the job before it has left.
type (
	heldWalk struct {
		at   uint32 // number of the next repo
		done bool
	}
	retryWalk struct {
		of   uint64 // the job whose repos come next; 0: that which is carried on
		at   syntax.DID
		done bool
	}
)

type modelWork struct {
	jobs.WorkRepo

	owed   jobs.Owed
	listed map[place]bool // in earlier steps
}

// place is a record of a repo.
type place struct {
	collection syntax.NSID
	rkey       syntax.RecordKey
}

// errOther stands for a refusal that is none of those that callers tell apart.
var errOther = errors.New("some refusal")

func newModel(now time.Time) *model {
	return &model{
		now: now, steady: now, deletions: map[syntax.NSID][]store.Deletion{}, denied: map[string]string{}, distrusted: map[string]bool{},
		tracked: map[syntax.NSID]bool{}, keys: map[string]*admin.APIKey{}, deleted: map[syntax.NSID]uint64{},
	}
}

// clone copies the model, for what is done to it to be undone.
func (m *model) clone() *model {
	c := *m
	c.repos, c.jobs, c.events = slices.Clone(m.repos), slices.Clone(m.jobs), slices.Clone(m.events)
	c.deletions, c.denied, c.distrusted = maps.Clone(m.deletions), maps.Clone(m.denied), maps.Clone(m.distrusted)
	c.tracked, c.keys, c.deleted = maps.Clone(m.tracked), maps.Clone(m.keys), maps.Clone(m.deleted)
	for i, r := range c.repos {
		one := *r
		one.held = map[syntax.NSID]*modelHeld{}
		for name, h := range r.held {
			one.held[name] = &modelHeld{floor: h.floor, records: maps.Clone(h.records), exact: h.exact, assumed: h.assumed}
		}
		c.repos[i] = &one
	}
	for i, j := range c.jobs {
		one := *j
		one.work, one.hosts, one.cursors = maps.Clone(j.work), maps.Clone(j.hosts), maps.Clone(j.cursors)
		for did, w := range one.work {
			row := *w
			row.listed = maps.Clone(w.listed)
			one.work[did] = &row
		}
		for name, h := range one.hosts {
			row := *h
			one.hosts[name] = &row
		}
		c.jobs[i] = &one
	}
	for secret, k := range c.keys {
		one := *k
		c.keys[secret] = &one
	}
	return &c
}

func (m *model) bound(usual int) int {
	if m.step > 0 {
		return m.step
	}
	return usual
}

func (m *model) clock() time.Time { return m.now.UTC().Truncate(time.Second) }

// pass moves the wall clock. The store's own follows it forward only, and not for
// more than a day over the time between two processes.
func (m *model) pass(by time.Duration, between bool) {
	m.now = m.now.Add(by)
	if by = max(by, 0); between {
		by = min(by, 24*time.Hour)
	}
	m.steady = m.steady.Add(by)
}

// repo is the repo of a DID; one that has no number yet is not kept until it gets
// one.
func (m *model) repo(did syntax.DID) *modelRepo {
	for _, r := range m.repos {
		if r.did == did {
			return r
		}
	}
	return &modelRepo{did: did, account: index.AccountActive, held: map[syntax.NSID]*modelHeld{}}
}

// sorted are the keys of a map, in order.
func sorted[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

func (r *modelRepo) holds(targets []syntax.NSID) bool {
	if len(targets) == 0 {
		targets = sorted(r.held)
	}
	return slices.ContainsFunc(targets, func(c syntax.NSID) bool { return r.held[c] != nil && len(r.held[c].records) > 0 })
}

// put brings one record to a body at a rev, and reports whether it was created,
// updated, or kept because the index has it at a later rev.
func (m *model) put(r *modelRepo, c syntax.NSID, l index.Listed, read index.Reading) (created, updated, kept bool) {
	if r.number == 0 {
		m.repos = append(m.repos, r)
		r.number = uint32(len(m.repos))
	}
	if r.held[c] == nil {
		r.held[c] = &modelHeld{records: map[syntax.RecordKey]index.Record{}}
	}
	src := cmp.Or(l.Source, read.Source)
	old, had := r.held[c].records[l.RKey]
	switch {
	case had && old.Rev > read.Rev:
		return false, false, true
	case had && old.Body.CID.Equals(l.Body.CID) && proofOf(old.Body, old.Source) >= proofOf(l.Body, src):
		return false, false, false
	}
	m.seq++
	r.held[c].records[l.RKey] = index.Record{
		DID: r.did, Collection: c, RKey: l.RKey, Rev: read.Rev, IndexedAt: m.clock(), Seq: m.seq, Source: src, Body: l.Body,
	}
	return !had, had, false
}

// proofOf ranks what is known of a body: that it is what its CID names, that it was
// printed from that, or nothing.
func proofOf(b record.Body, src index.Source) int {
	switch {
	case b.Verified:
		return 2
	case src == index.SourceRepo || src == index.SourceProof:
		return 1
	default:
		return 0
	}
}

// remove deletes a record as of a rev, and reports what became of it.
func (m *model) remove(r *modelRepo, p place, rev syntax.TID) (gone, kept bool) {
	h := r.held[p.collection]
	if h == nil {
		return false, false
	}
	rec, ok := h.records[p.rkey]
	switch {
	case !ok:
		return false, false
	case rec.Rev > rev:
		return false, true
	}
	m.seq++
	delete(h.records, p.rkey)
	m.deletions[p.collection] = append(m.deletions[p.collection], store.Deletion{
		Seq: m.seq, At: m.steady, Rev: rev, DID: r.did, RKey: p.rkey,
	})
	return true, false
}

// removeAll deletes everything that is held of a repo in the chosen collection, or
// in all.
func (m *model) removeAll(r *modelRepo, only syntax.NSID) (n int64) {
	for _, c := range sorted(r.held) {
		for _, rkey := range sorted(r.held[c].records) {
			if only == "" || only == c {
				m.remove(r, place{c, rkey}, store.LastRev)
				n++
			}
		}
	}
	return n
}

// fresh is a segment without what was listed before.
func (w *modelWork) fresh(seg index.Segment) index.Segment {
	seg.Records = slices.DeleteFunc(slices.Clone(seg.Records), func(l index.Listed) bool { return w.listed[place{seg.Collection, l.RKey}] })
	seg.Rejected = slices.DeleteFunc(slices.Clone(seg.Rejected), func(k syntax.RecordKey) bool { return w.listed[place{seg.Collection, k}] })
	return seg
}

// named are the keys of a segment.
func named(seg index.Segment) []syntax.RecordKey {
	keys := slices.Clone(seg.Rejected)
	for _, l := range seg.Records {
		keys = append(keys, l.RKey)
	}
	return keys
}

// apply puts what a segment lists.
func (m *model) apply(r *modelRepo, seg index.Segment, read index.Reading, t *index.Tally) (guarded bool) {
	list := slices.Clone(seg.Records)
	if len(list) > 0 && list[0].RKey >= list[len(list)-1].RKey {
		slices.Reverse(list)
	}
	for _, l := range list {
		created, updated, kept := m.put(r, seg.Collection, l, read)
		if created {
			t.Created++
		}
		if updated {
			t.Updated++
		}
		guarded = guarded || kept
	}
	t.Records += int64(len(seg.Records))
	t.Rejected += int64(len(seg.Rejected))
	return guarded
}

// denies reports whether a repo, or its host, is on the deny list.
func (m *model) denies(did syntax.DID, host string) bool {
	if _, ok := m.denied[string(did)]; ok {
		return true
	}
	u, err := url.Parse(host)
	if err != nil || host == "" {
		return false
	}
	_, whole := m.denied[u.Host]
	_, name := m.denied[u.Hostname()]
	return whole || name
}

// enforce hides every denied repo, and then deletes what is held of them.
func (m *model) enforce() {
	var hidden []*modelRepo
	for _, r := range m.repos {
		if m.denies(r.did, r.host) && (r.account != index.AccountDenied || r.holds(nil)) {
			r.account = index.AccountDenied
			hidden = append(hidden, r)
		}
	}
	for _, r := range hidden {
		m.removeAll(r, "")
	}
}

// deleteRecords deletes what a filter chooses, and returns how much that was.
func (m *model) deleteRecords(f index.Filter) (n int64) {
	if f.DID == "" {
		m.deleted[f.Collection] = uint64(len(m.jobs))
	}
	for _, c := range m.collections() {
		for _, r := range m.repos {
			if (f.Collection == "" || f.Collection == c) && (f.DID == "" || f.DID == r.did) {
				n += m.removeAll(r, c)
			}
		}
	}
	return n
}

// collections are all of which a record was ever stored.
func (m *model) collections() []syntax.NSID {
	all := map[syntax.NSID]bool{}
	for _, r := range m.repos {
		for c := range r.held {
			all[c] = true
		}
	}
	return sorted(all)
}

// prune forgets what is kept no longer. Jobs of the schedule go sooner than others,
// but not the last over a collection, nor one that is being carried on.
//
// Deletions are kept at least until the key index, which contains the changes up to
// indexed, has learnt of them.
func (m *model) prune(indexed map[syntax.NSID]uint64) {
	const day = 24 * time.Hour
	for c, list := range m.deletions {
		for len(list) > 0 && m.steady.Sub(list[0].At) > 30*day && list[0].Seq <= indexed[c] {
			list = list[1:]
		}
		m.deletions[c] = list
	}
	kept := m.carriedOn()
	for _, j := range m.jobs {
		if !j.Status.Final() || kept[j.Seq] {
			continue
		}
		age, keep := m.steady.Sub(j.KeptFrom), 28*day
		if j.Origin == api.OriginRefresh {
			keep = 3 * day
			needed := slices.ContainsFunc(m.jobs, func(o *modelJob) bool { return !o.Status.Final() && o.RetryOf == j.Seq })
			if age >= 28*day && !needed && m.freshness(j.Targets[0]).Last != j.Seq {
				j.gone = true
			}
		}
		if age >= keep {
			j.forgot, j.work, j.hosts, j.cursors = true, nil, nil, nil
		}
	}
	for len(m.events) > 0 && m.steady.Sub(m.events[0].KeptFrom) > 400*day {
		m.events = m.events[1:]
	}
}

// freshness is what the jobs over the network came to in a collection: those that
// read it among others they were asked for, or those that read all there are,
// whichever ended with the newer job.
func (m *model) freshness(c syntax.NSID) (f jobs.Freshness) {
	over := func(all bool) (f jobs.Freshness) {
		f.After = m.deleted[c]
		list := slices.DeleteFunc(slices.Clone(m.jobs), func(j *modelJob) bool {
			return j.end == 0 || !j.Request.Network() || (len(j.Targets) == 0) != all || (!all && !slices.Contains(j.Targets, c))
		})
		slices.SortFunc(list, func(a, b *modelJob) int { return cmp.Compare(a.end, b.end) })
		for _, j := range list {
			f.Last, f.EndedAt, f.Status = j.Seq, j.CompletedAt, j.Status
			first, since := j.began()
			switch j.Status {
			default: // somebody wanted it
			case api.StatusFailed:
				f.Failures++
			case api.StatusCompleted:
				f.Failures = 0
				if first > f.After && first >= f.First {
					f.First, f.SyncedAt, f.CompletedAt = first, since, j.CompletedAt
				}
			}
		}
		return f
	}
	f, all := over(false), over(true)
	if all.First > max(f.First, f.After) {
		f.First, f.SyncedAt, f.CompletedAt = all.First, all.SyncedAt, all.CompletedAt
	}
	if all.Last > f.Last {
		f.Last, f.EndedAt, f.Status, f.Failures = all.Last, all.EndedAt, all.Status, all.Failures
	}
	return f
}

// job is the job with an id, nil if there is none.
func (m *model) job(id uuid.UUID) *modelJob {
	for _, j := range m.jobs {
		if j.ID == id {
			return j
		}
	}
	return nil
}
