package store_test

import (
	"maps"
	"slices"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/store/index"
	"appview/store/jobs"
)

// The changes of the model that are about one repo of a job.

// owes is the row of a repo that is owed at a host, if the job is still open.
func (j *modelJob) owes(host string, did syntax.DID) (*modelWork, error) {
	if err := j.open(); err != nil {
		return nil, err
	}
	w := j.work[did]
	if w == nil || w.State == jobs.RepoSettled || w.owed.Host != host {
		return nil, jobs.ErrStale
	}
	return w, nil
}

func (j *modelJob) putHost(host string, b jobs.Behaviour) error {
	if err := j.open(); err != nil {
		return err
	}
	j.known(host).behaviour = b
	return nil
}

func (j *modelJob) rehost(did syntax.DID, from, to string) error {
	w, err := j.owes(from, did)
	if err != nil {
		return err
	}
	j.known(to)
	w.State, w.Host = jobs.RepoOwed, to
	w.owed = jobs.Owed{DID: did, Host: to, Moved: from != "" || w.owed.Moved, Again: w.owed.Again}
	clear(w.listed)
	if from == "" {
		j.progress()
	}
	return nil
}

func (j *modelJob) postpone(o jobs.Owed) error {
	w, err := j.owes(o.Host, o.DID)
	if err != nil {
		return err
	}
	o.Moved, o.Again, o.Position = w.owed.Moved, w.owed.Again, w.owed.Position
	w.owed = o
	return nil
}

func (m *model) save(j *modelJob, did syntax.DID, read index.Reading, at jobs.Position) (fresh int, err error) {
	w, err := j.owes(read.Host, did)
	if err != nil {
		return 0, err
	}
	r := m.repo(did)
	switch {
	case m.denies(did, read.Host):
		return 0, index.ErrDenied
	case r.floor > read.Rev:
		return 0, index.ErrRevWentBack
	case w.undone(r):
		return 0, index.ErrUndone
	}
	at.Tally, at.Guarded, at.Marked = index.Tally{}, false, true
	if w.owed.Position != nil {
		at.Tally, at.Guarded = w.owed.Position.Tally, w.owed.Position.Guarded
	}
	rejected := at.Tally.Rejected
	for _, seg := range read.Segments {
		rejected += int64(len(seg.Rejected))
	}
	r.account, r.notFoundAt = index.AccountActive, time.Time{}
	if why := m.tooLarge(r, w, read, rejected*(16+512+4)); why != "" {
		return 0, index.ErrAccountFull
	}
	for _, seg := range read.Segments {
		seg = w.fresh(seg)
		if m.apply(r, seg, read, &at.Tally) {
			at.Guarded = true
		}
		for _, k := range named(seg) {
			w.listed[place{seg.Collection, k}] = true
			fresh++
		}
	}
	r.at(read.Host)
	w.owed = jobs.Owed{DID: did, Host: w.owed.Host, Moved: w.owed.Moved, Again: w.owed.Again, Position: &at}
	return fresh, nil
}

// undone reports whether what earlier steps brought may be deleted: the account has ended.
func (w *modelWork) undone(r *modelRepo) bool {
	return w.owed.Position != nil && len(w.owed.Position.Read) > 0 && (r.account != index.AccountActive || !w.owed.Position.Marked)
}

func (j *modelJob) restart(host string, did syntax.DID, at jobs.Position) error {
	w, err := j.owes(host, did)
	if err != nil {
		return err
	}
	if p := w.owed.Position; p != nil {
		at.Tally = index.Tally{Created: p.Tally.Created, Updated: p.Tally.Updated, Deleted: p.Tally.Deleted}
	}
	clear(w.listed)
	w.owed.Position = &at
	return nil
}

// mayEnd reports whether a short page may be taken for the end: the host is trusted, and
// nothing is held that was not listed.
func (m *model) mayEnd(w *modelWork, host string, read index.Reading, c syntax.NSID) bool {
	return !m.distrusted[host] && len(m.unlisted(w, read, c)) == 0
}

// unlisted are the keys that are held of a collection and were not listed, in any step.
func (m *model) unlisted(w *modelWork, read index.Reading, c syntax.NSID) (keys []syntax.RecordKey) {
	h := m.repo(w.owed.DID).held[c]
	if h == nil {
		return nil
	}
	for _, k := range sorted(h.records) {
		if !w.listed[place{c, k}] && !slices.ContainsFunc(read.Segments, func(seg index.Segment) bool {
			return seg.Collection == c && slices.Contains(named(seg), k)
		}) {
			keys = append(keys, k)
		}
	}
	return keys
}

// keeps reports whether just what a repo held in c at a rev is held, and not because of
// what was assumed of another host, or of one that is not trusted any more.
func (m *model) keeps(r *modelRepo, c syntax.NSID, host string, at syntax.TID) bool {
	h := r.held[c]
	return h != nil && h.exactness() != index.ExactUnknown && h.floor == at &&
		(h.assumed == "" || h.assumed == host && r.host == host && !m.distrusted[host])
}

// at notes the host of a repo. What was assumed of another one is not known any more.
func (r *modelRepo) at(host string) {
	if r.number == 0 || host == "" {
		return
	}
	r.host = host
	for _, h := range r.held {
		if h.assumed != "" && h.assumed != host {
			h.exact, h.assumed = nil, ""
		}
	}
}

func (m *model) settle(j *modelJob, t jobs.Settlement) error {
	w, err := j.owes(t.Reading.Host, t.DID)
	if err != nil {
		return err
	}
	if m.denies(t.DID, w.owed.Host) {
		t = jobs.Settlement{
			DID: t.DID, Attempts: t.Attempts, Reading: index.Reading{Host: t.Reading.Host}, Account: index.AccountDenied, Purge: true,
			Verdict: jobs.Verdict{Class: jobs.ClassUnavailable, Reason: index.AccountDenied},
		}
	}
	r := m.repo(t.DID)
	for _, c := range t.Short.Assumed {
		if !m.mayEnd(w, t.Reading.Host, t.Reading, c) {
			return index.ErrNotTheEnd
		}
	}
	if t.Reading.Rev != "" && r.floor > t.Reading.Rev {
		return index.ErrRevWentBack
	}
	if t.Account == index.AccountActive && w.undone(r) {
		return index.ErrUndone
	}
	if why := m.tooLarge(r, w, t.Reading, 0); why != "" {
		t = jobs.Settlement{
			DID: t.DID, Attempts: t.Attempts, Reading: index.Reading{Host: t.Reading.Host}, Account: t.Account,
			Verdict: jobs.Verdict{Class: jobs.ClassFailed, Reason: "too_large", Detail: why},
		}
	}
	tally, guarded := index.Tally{}, false
	if p := w.owed.Position; p != nil {
		tally, guarded = p.Tally, p.Guarded
	}
	tally.Rejected += t.Rejected
	assumed := len(t.Short.Assumed) > 0
	for _, c := range t.Kept {
		if !m.keeps(r, c, t.Reading.Host, t.Floor) {
			return index.ErrUndone
		}
		tally.Records += int64(len(r.held[c].records))
		assumed = assumed || r.held[c].assumed != ""
	}
	remove := func(p place, rev syntax.TID) {
		gone, kept := m.remove(r, p, rev)
		if gone {
			tally.Deleted++
		}
		guarded = guarded || kept
	}
	for _, c := range m.collections() {
		confirmed, some := t.Confirmed[c]
		if slices.Contains(t.Kept, c) || !some && !slices.Contains(t.Complete, c) {
			continue
		}
		for _, k := range m.unlisted(w, t.Reading, c) {
			if some && !slices.Contains(confirmed, k) || t.Floor < r.held[c].floor {
				guarded = true // it was read completely since, and left, or nobody says that it is not there
			} else {
				remove(place{c, k}, t.Floor)
			}
		}
	}
	for _, seg := range t.Reading.Segments {
		if m.apply(r, w.fresh(seg), t.Reading, &tally) {
			guarded = true
		}
	}
	if r.number != 0 && len(t.Complete) > 0 {
		r.floor = max(r.floor, t.Floor)
		for _, c := range t.Complete {
			h := r.held[c]
			if h == nil || h.floor > t.Floor || slices.Contains(t.Kept, c) {
				continue
			}
			h.floor, h.exact, h.assumed = t.Floor, nil, ""
			if t.Exact && !guarded && tally.Rejected == 0 && tally.Records == r.count(t.Complete) {
				h.exact = maps.Clone(h.records)
				if slices.Contains(t.Short.Assumed, c) {
					h.assumed = t.Reading.Host
				}
			}
		}
	}
	tally.Deleted += m.account(r, t)
	m.learn(j, t)
	j.close(w, t, tally, assumed, judged(t, tally, guarded))
	return nil
}

// judged is what a repo ends as.
func judged(t jobs.Settlement, tally index.Tally, guarded bool) jobs.Verdict {
	v := jobs.Verdict{Class: jobs.ClassDone, Reason: "exact"}
	if !t.Exact || guarded {
		v.Reason = "changed_during_read"
	}
	if tally.Records == 0 {
		v.Reason = "empty"
	}
	if tally.Rejected > 0 {
		v = jobs.Verdict{Class: jobs.ClassFailed, Reason: "rejected", Detail: t.RejectedDetail}
	}
	if t.Verdict != (jobs.Verdict{}) {
		v = t.Verdict
	}
	return v
}

// count is how many records are held in some collections.
func (r *modelRepo) count(list []syntax.NSID) (n int64) {
	for _, c := range list {
		if h := r.held[c]; h != nil {
			n += int64(len(h.records))
		}
	}
	return n
}

// learn notes what a settlement has shown of the host's short pages.
func (m *model) learn(j *modelJob, t jobs.Settlement) {
	switch {
	case t.Short.More:
		m.distrusted[t.Reading.Host] = true
	case len(t.Short.Ends) > 0:
		h := j.known(t.Reading.Host)
		h.ends += len(t.Short.Ends)
		h.longest = max(h.longest, slices.Max(t.Short.Ends))
	}
}

// account notes what a settlement says of the account, and returns how many
// records that purged.
func (m *model) account(r *modelRepo, t jobs.Settlement) int64 {
	if t.Account == "" || r.number == 0 {
		return 0
	}
	purge := t.Purge
	switch {
	case t.Account != index.AccountNotFound:
		r.notFoundAt = time.Time{}
	case r.notFoundAt.IsZero():
		r.notFoundAt = m.steady
	default:
		purge = purge || m.steady.Sub(r.notFoundAt) >= 7*24*time.Hour
	}
	r.account = t.Account
	r.at(t.Reading.Host)
	if !purge {
		return 0
	}
	return m.removeAll(r, "")
}

// close puts a repo into its class. What it counted when it was settled before does
// not go back.
func (j *modelJob) close(w *modelWork, t jobs.Settlement, tally index.Tally, assumed bool, v jobs.Verdict) {
	if w.Class == jobs.ClassFailed {
		v = jobs.Verdict{Class: w.Class, Reason: w.Reason, Detail: w.Detail}
	}
	was := w.Tally
	w.WorkRepo = jobs.WorkRepo{
		State: jobs.RepoSettled, Host: w.owed.Host, Class: v.Class, Reason: v.Reason, Detail: v.Detail,
		Attempts: t.Attempts, Rev: t.Reading.Rev, Assumed: assumed,
		Tally: index.Tally{
			Records: max(tally.Records, was.Records), Created: tally.Created + was.Created, Updated: tally.Updated + was.Updated,
			Deleted: tally.Deleted + was.Deleted, Rejected: max(tally.Rejected, was.Rejected),
		},
	}
	clear(w.listed)
	j.progress()
}

// settleHost gives up what is owed at a host, one step of it, and returns how many
// repos that were.
func (m *model) settleHost(j *modelJob, host string, v jobs.Verdict) (int, error) {
	if err := j.open(); err != nil {
		return 0, err
	}
	n := 0
	for _, did := range sorted(j.work) {
		w, err := j.owes(host, did)
		if err != nil || n == m.bound(500) {
			continue
		}
		n++
		var tally index.Tally
		if p := w.owed.Position; p != nil {
			tally = p.Tally
		}
		t := jobs.Settlement{DID: did, Attempts: w.owed.Attempts, Reading: index.Reading{Host: host}}
		j.close(w, t, tally, false, v)
	}
	return n, nil
}

// reopen has all repos read anew whose end was assumed and must not be, and returns
// the hosts that owe more for it.
func (m *model) reopen(j *modelJob) ([]string, error) {
	hosts := m.doubted(j)
	if len(hosts) == 0 {
		return nil, nil
	}
	if err := j.open(); err != nil {
		return nil, err
	}
	for did, w := range j.work {
		if w.Assumed && m.distrusted[w.Host] {
			w.State, w.Assumed = jobs.RepoOwed, false
			w.owed = jobs.Owed{DID: did, Host: w.Host, Again: true}
		}
	}
	j.count()
	return hosts, nil
}
