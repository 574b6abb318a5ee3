package store_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/google/uuid"

	"appview/internal/api"
	"appview/internal/record"
	"appview/store/admin"
	"appview/store/index"
	"appview/store/jobs"
)

// What the random changes are about: few of each, so that they meet.
var (
	modelDIDs = []syntax.DID{
		alice, bob, "did:plc:cccccccccccccccccccccccc", "did:web:d.example.com", "did:plc:eeeeeeeeeeeeeeeeeeeeeeee",
	}
	modelHosts       = []string{"https://one.example.com", "https://two.example.com:8443", "https://three.example.com"}
	modelDenials     = append([]string{"one.example.com", "two.example.com", "two.example.com:8443"}, string(alice), string(modelDIDs[3]))
	modelCollections = []syntax.NSID{note, other, "com.example.third"}
	modelKeys        = []syntax.RecordKey{"a", "b", "c", "d", "e", "f", "g", "3lzzzzzzzzz22", "self"}
	modelSecrets     = []string{"hv_one", "hv_two"}
	modelKeyIDs      = map[string]uuid.UUID{"hv_one": {1}, "hv_two": {2}}
	modelUser        = admin.Actor{Kind: api.ActorKey, KeyID: uuid.UUID{9}, Name: "user"}
	modelAccounts    = []string{
		index.AccountDeactivated, index.AccountTakenDown, index.AccountSuspended,
		index.AccountNotFound, index.AccountNotFound, "deleted", "tombstoned", "no_pds",
	}
	listings = []string{string(note), "relay"}
)

// drive makes the same random changes to a store and to its model.
type drive struct {
	bed

	rng   *rand.Rand
	truth map[syntax.DID][]snapshot // what each repo held, oldest first
	trace []string
}

// snapshot is what a repo held at a rev.
type snapshot struct {
	rev     int
	records map[place]record.Body
}

func pick[T any](d *drive, list []T) T { return list[d.rng.IntN(len(list))] }

// often says yes that many times in a hundred.
func (d *drive) often(percent int) bool { return d.rng.IntN(100) < percent }

// edit changes what a repo holds, as its owner does.
func (d *drive) edit(did syntax.DID) {
	now, created, deleted := snapshot{rev: 1, records: map[place]record.Body{}}, 60, 0
	if had := d.truth[did]; len(had) > 0 {
		now = snapshot{rev: had[len(had)-1].rev + 1, records: maps.Clone(had[len(had)-1].records)}
		created, deleted = 15, 15
	}
	for _, c := range modelCollections {
		for _, rkey := range modelKeys {
			p := place{c, rkey}
			if d.often(deleted) {
				delete(now.records, p)
				continue
			}
			if !d.often(created) {
				continue
			}
			b := body(d.t, fmt.Sprintf("%d", d.rng.IntN(12)))
			if d.often(10) {
				// As JSON, which cannot be proved to be what the CID stands for.
				b.Verified, b.Data = false, []byte(strings.Repeat(" ", d.rng.IntN(2))+`{"x":"unverified"}`)
			}
			now.records[p] = b
		}
	}
	d.truth[did] = append(d.truth[did], now)
}

// shown is what a host shows of a repo: mostly what it holds, at times what it held, or
// what it held when it was read last.
func (d *drive) shown(did syntax.DID) snapshot {
	if d.often(30) {
		floor := d.m.repo(did).floor
		for _, s := range d.truth[did] {
			if rev(s.rev) == floor {
				return s
			}
		}
	}
	if d.often(50) || len(d.truth[did]) == 0 {
		d.edit(did)
	}
	list := d.truth[did]
	if d.often(25) {
		return pick(d, list)
	}
	return list[len(list)-1]
}

// job is one that is worked on, at times another.
func (d *drive) job() *modelJob {
	var open []*modelJob
	for _, j := range d.m.jobs {
		if !j.Status.Final() {
			open = append(open, j)
		}
	}
	if len(open) == 0 || d.often(3) {
		return pick(d, d.m.jobs)
	}
	return pick(d, open)
}

// row is a repo that some job owes: at a host, or to be looked up. Now and then it is
// one that the job does not owe.
func (d *drive) row(resolved bool) (*modelJob, jobs.Owed) {
	type owing struct {
		j *modelJob
		o jobs.Owed
	}
	var rows []owing
	for _, j := range d.m.jobs {
		for _, did := range sorted(j.work) {
			if w := j.work[did]; !j.Status.Final() && w.State != jobs.RepoSettled && (w.owed.Host != "") == resolved {
				rows = append(rows, owing{j, w.owed})
			}
		}
	}
	if len(rows) == 0 || d.often(6) {
		return d.job(), jobs.Owed{DID: pick(d, modelDIDs), Host: pick(d, append([]string{""}, modelHosts...))}
	}
	// What is begun is gone on with.
	begun := slices.DeleteFunc(slices.Clone(rows), func(r owing) bool { return r.o.Position == nil })
	if len(begun) > 0 && d.often(60) {
		rows = begun
	}
	row := pick(d, rows)
	return row.j, row.o
}

// stretch lists a collection on: to its end, or some of it, in some order, with some of
// what was listed before.
func (d *drive) stretch(w *modelWork, c syntax.NSID, from jobs.ReadUpTo, s snapshot, toEnd bool) (index.Segment, jobs.ReadUpTo) {
	seg, up := index.Segment{Collection: c}, jobs.ReadUpTo{Done: true, Partial: from.Partial || d.often(8), Last: from.Last, Order: from.Order}
	keys := slices.Clone(modelKeys)
	slices.Sort(keys)
	switch d.rng.IntN(3) {
	case 0:
		slices.Reverse(keys)
	case 1:
		d.rng.Shuffle(len(keys), func(i, k int) { keys[i], keys[k] = keys[k], keys[i] })
	}
	for _, rkey := range keys {
		b, ok := s.records[place{c, rkey}]
		switch {
		case !ok || w != nil && w.listed[place{c, rkey}] && d.often(70):
			continue
		case !toEnd && d.often(20):
			up.Done, up.Cursor = false, "cursor "+up.Last.String()
			return seg, up
		case d.often(4):
			seg.Rejected = append(seg.Rejected, rkey)
		default:
			l := index.Listed{RKey: rkey, Body: b}
			if !b.Verified && rkey == modelKeys[0] {
				l.Source = index.SourceProof
			}
			seg.Records = append(seg.Records, l)
		}
		up.Order, up.Last = up.Order.With(up.Last, rkey), rkey
	}
	return seg, up
}

// reading reads a repo on from where it was left: to its end, or a step of it.
func (d *drive) reading(j *modelJob, o jobs.Owed, toEnd bool) (index.Reading, jobs.Position) {
	s := d.shown(o.DID)
	read := index.Reading{Host: o.Host, Rev: rev(s.rev), Source: index.SourceListRecords}
	if d.often(20) {
		read.Source = index.SourceRepo
	}
	at := jobs.Position{First: read.Rev, Read: map[syntax.NSID]jobs.ReadUpTo{}, Pass: d.rng.IntN(3)}
	if p := o.Position; p != nil {
		at, at.Read = *p, maps.Clone(p.Read)
		at.Pages++
	}
	if at.Read == nil {
		at.Read = map[syntax.NSID]jobs.ReadUpTo{}
	}
	targets := j.Targets
	if len(targets) == 0 {
		targets = modelCollections
	}
	for _, c := range targets {
		if at.Read[c].Done {
			continue
		}
		seg, up := d.stretch(j.work[o.DID], c, at.Read[c], s, toEnd)
		read.Segments, at.Read[c] = append(read.Segments, seg), up
		if !up.Done {
			break
		}
	}
	return read, at
}

// settlement ends a repo: read, unavailable, or given up.
func (d *drive) settlement(j *modelJob, o jobs.Owed) jobs.Settlement {
	t := jobs.Settlement{DID: o.DID, Attempts: 1 + d.rng.IntN(5), Reading: index.Reading{Host: o.Host}}
	switch dice := d.rng.IntN(100); {
	case dice < 65 && o.Host != "":
		return d.readToEnd(j, o)
	case dice < 85:
		t.Account = pick(d, modelAccounts)
		t.Purge = t.Account == "deleted" || t.Account == "tombstoned"
		t.Verdict = jobs.Verdict{Class: jobs.ClassUnavailable, Reason: t.Account, Detail: "so it says"}
	default:
		t.Verdict = jobs.Verdict{Class: jobs.ClassFailed, Reason: "timeout"}
	}
	return t
}

// readToEnd ends a repo that is read to its end.
func (d *drive) readToEnd(j *modelJob, o jobs.Owed) jobs.Settlement {
	t := jobs.Settlement{DID: o.DID, Attempts: 1 + d.rng.IntN(5)}
	var at jobs.Position
	t.Reading, at = d.reading(j, o, true)
	t.Floor, t.Account = at.First, index.AccountActive
	for _, c := range sorted(at.Read) {
		if up := at.Read[c]; up.Done && !up.Partial && d.often(90) {
			t.Complete = append(t.Complete, c)
		}
	}
	d.confirm(j.work[o.DID], &t)
	d.short(&t)
	t.Exact = d.often(70)
	d.keep(&t)
	if d.often(5) {
		t.Rejected, t.RejectedDetail = 1+d.rng.Int64N(3), "so many"
	}
	return t
}

// keep has some collections not be listed, since they are held as they are shown; now
// and then one that is not, or is not any more.
func (d *drive) keep(t *jobs.Settlement) {
	r := d.m.repo(t.DID)
	t.Reading.Segments = slices.DeleteFunc(t.Reading.Segments, func(seg index.Segment) bool {
		h := r.held[seg.Collection]
		whole := slices.Contains(t.Complete, seg.Collection) && !d.begun(t.DID, seg.Collection)
		if !whole || h == nil || (!d.m.keeps(r, seg.Collection, t.Reading.Host, t.Floor) && d.often(95)) || d.often(20) {
			return false
		}
		t.Kept = append(t.Kept, seg.Collection)
		return true
	})
}

// begun reports whether some job has listed something of a collection in steps.
func (d *drive) begun(did syntax.DID, c syntax.NSID) bool {
	return slices.ContainsFunc(d.m.jobs, func(j *modelJob) bool {
		w := j.work[did]
		return w != nil && slices.ContainsFunc(modelKeys, func(k syntax.RecordKey) bool { return w.listed[place{c, k}] })
	})
}

// confirm has the host say of some records that were not listed that they are not there.
func (d *drive) confirm(w *modelWork, t *jobs.Settlement) {
	if w == nil {
		return
	}
	for _, c := range modelCollections {
		if !d.often(15) {
			continue
		}
		t.Confirmed = map[syntax.NSID][]syntax.RecordKey{c: nil}
		for _, k := range d.m.unlisted(w, t.Reading, c) {
			if d.often(70) {
				t.Confirmed[c] = append(t.Confirmed[c], k)
			}
		}
		if d.often(50) {
			t.Complete = slices.DeleteFunc(t.Complete, func(o syntax.NSID) bool { return o == c })
		}
	}
}

// short has the last pages of a reading been short: taken for the end, or followed.
func (d *drive) short(t *jobs.Settlement) {
	switch {
	case d.often(35):
		for i := range t.Reading.Segments {
			seg := &t.Reading.Segments[i]
			if n := len(seg.Records); n > 0 && d.often(70) {
				seg.Records = seg.Records[:max(n-d.rng.IntN(3), 1)]
				t.Short.Assumed = append(t.Short.Assumed, seg.Collection)
			}
		}
	case d.often(10):
		t.Short.More = true
	case d.often(50):
		t.Short.Ends = []int{1 + d.rng.IntN(9), 1 + d.rng.IntN(9)}
	}
}
