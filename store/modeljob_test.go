package store_test

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/google/uuid"

	"appview/internal/api"
	"appview/store"
	"appview/store/admin"
	"appview/store/index"
	"appview/store/jobs"
)

// The changes of the model that are about jobs as a whole. Each says what the store
// is to answer: nil, the error that callers tell apart, or errOther.

// stages are in the order in which they may follow each other.
var stages = [...]api.Stage{
	api.StagePending, api.StageDiscovering, api.StageResolving, api.StageFetching,
	api.StageCompleted, api.StageFailed, api.StageCancelled,
}

func (j *modelJob) advance(to api.Stage) {
	if slices.Index(stages[:], to) > slices.Index(stages[:], j.Stage) {
		j.Stage = to
	}
}

// progress counts the job's repos, and moves the stage to the earliest phase that
// owes work.
func (j *modelJob) progress() {
	j.count()
	switch {
	case j.Status.Final() || j.StartedAt.IsZero():
	case !j.Discovered:
		j.advance(api.StageDiscovering)
	case j.Unresolved > 0:
		j.advance(api.StageResolving)
	default:
		j.advance(api.StageFetching)
	}
}

// count makes the job's counters what its repos add up to.
func (j *modelJob) count() {
	if j.forgot {
		return
	}
	j.TotalRepos, j.Unresolved, j.Processed, j.Failed, j.Unavailable, j.Reopened = 0, 0, 0, 0, 0, 0
	j.Tally, j.Reasons = index.Tally{}, nil
	for _, w := range j.work {
		j.TotalRepos++
		if w.State != jobs.RepoSettled && w.Host == "" {
			j.Unresolved++
		}
		if w.Class == "" {
			continue
		}
		j.Processed++
		switch w.Class {
		case jobs.ClassFailed:
			j.Failed++
		case jobs.ClassUnavailable:
			j.Unavailable++
		}
		if w.State != jobs.RepoSettled {
			j.Reopened++
		}
		j.Tally = add(j.Tally, w.Tally)
		if j.Reasons == nil {
			j.Reasons = map[string]int64{}
		}
		j.Reasons[w.Reason]++
	}
}

// host is the job's row of a host.
func (j *modelJob) host(host string) jobs.HostWork {
	h := j.hosts[host]
	row := jobs.HostWork{Ends: h.ends, LongestEnd: h.longest, Behaviour: h.behaviour}
	for _, w := range j.work {
		if w.Host != host {
			continue
		}
		row.Total++
		row.Records += w.Tally.Records
		switch w.Class {
		case "":
			continue
		case jobs.ClassFailed:
			row.Failed++
		default:
			row.Completed++
		}
		if w.State != jobs.RepoSettled {
			row.Again++
		}
		if w.Assumed {
			row.Assumed++
		}
	}
	return row
}

// known makes a row for a host.
func (j *modelJob) known(host string) *modelHost {
	if j.hosts[host] == nil {
		j.hosts[host] = &modelHost{}
	}
	return j.hosts[host]
}

// began is the number of the first of the jobs that were carried on, and when it
// began.
func (j *modelJob) began() (uint64, time.Time) {
	first, since := j.Seq, j.StartedAt
	if j.First != 0 {
		first = j.First
	}
	if !j.Since.IsZero() {
		since = j.Since
	}
	return first, since
}

// note is an entry of the audit log.
func (m *model) note(what api.Action, target, detail string) {
	m.events = append(m.events, admin.Event{
		At: m.clock(), Actor: modelUser, Action: what, Target: target, Detail: detail, Outcome: api.OutcomeDone,
		KeptFrom: m.steady,
	})
}

func (m *model) end(j *modelJob, status api.Status, text string) {
	j.Status, j.Error, j.CompletedAt, j.KeptFrom = status, text, m.clock(), m.steady
	j.advance(api.Stage(status))
	m.ended++
	j.end = m.ended
}

func (m *model) create(id uuid.UUID, req jobs.Request, targets []syntax.NSID) *modelJob {
	j := &modelJob{
		Job: jobs.Job{
			Seq: uint64(len(m.jobs) + 1), ID: id, Request: req, Targets: targets, Origin: api.OriginRequest,
			Status: api.StatusRunning, Stage: api.StagePending, CreatedAt: m.clock(),
		},
		work: map[syntax.DID]*modelWork{}, hosts: map[string]*modelHost{}, cursors: map[string]jobs.Cursor{},
	}
	m.jobs = append(m.jobs, j)
	return j
}

// request creates a job as somebody asks for it.
func (m *model) request(id uuid.UUID, req jobs.Request, targets []syntax.NSID) *modelJob {
	switch {
	case len(targets) > 0:
	case req.Collection != "":
		targets = []syntax.NSID{req.Collection}
	default:
		targets = sorted(m.tracked)
	}
	j := m.create(id, req, targets)
	m.note(api.ActCreateJob, id.String(), j.Covers())
	return j
}

func (m *model) start(j *modelJob) {
	if j.Status == api.StatusRunning && j.StartedAt.IsZero() {
		j.StartedAt = m.clock()
		j.progress()
	}
}

// asks are from where a job can be asked to be something, and what the audit log calls
// that.
var asks = map[api.Status]struct {
	from []api.Status
	what api.Action
}{
	api.StatusCancelling: {[]api.Status{api.StatusRunning, api.StatusPausing, api.StatusPaused}, api.ActCancelJob},
	api.StatusPausing:    {[]api.Status{api.StatusRunning}, api.ActPauseJob},
	api.StatusRunning:    {[]api.Status{api.StatusPaused}, api.ActResumeJob},
}

func (m *model) move(j *modelJob, to api.Status) error {
	ask := asks[to]
	if !slices.Contains(ask.from, j.Status) {
		return jobs.ErrMove
	}
	j.Status = to
	m.note(ask.what, j.ID.String(), "")
	return nil
}

// doubts reports whether ends are assumed in a job that must not be.
func (m *model) doubts(j *modelJob) bool { return len(m.doubted(j)) > 0 }

// doubted are the hosts at which they are.
func (m *model) doubted(j *modelJob) []string {
	hosts := map[string]bool{}
	for _, w := range j.work {
		if w.Assumed && m.distrusted[w.Host] {
			hosts[w.Host] = true
		}
	}
	return sorted(hosts)
}

func (m *model) finish(j *modelJob, summary string) {
	done := j.Discovered && j.Processed == j.TotalRepos && j.Reopened == 0 && !m.doubts(j)
	switch {
	case j.Status == api.StatusCancelling:
		m.end(j, api.StatusCancelled, "cancelled by request")
	case j.Status == api.StatusPausing:
		j.Status = api.StatusPaused
	case j.Status != api.StatusRunning || !done:
	case j.DiscoveryError != "":
		m.end(j, api.StatusFailed, j.DiscoveryError)
	default:
		j.Listed = true
		m.end(j, api.StatusCompleted, summary)
	}
}

func (m *model) retryOf(old *modelJob, id uuid.UUID) error {
	switch {
	case old.gone:
		return store.ErrNotFound
	case !old.Status.Final():
		return jobs.ErrMove
	case old.Done() && old.DiscoveryError == "" && old.Failed == 0 && !m.doubtful(old), old.forgot:
		return jobs.ErrNothingLeft
	}
	j := m.create(id, old.Request, old.Targets)
	j.RetryOf, j.held = old.Seq, old.held
	j.First, j.Since = old.began()
	maps.Copy(j.cursors, old.cursors)
	m.note(api.ActRetryJob, id.String(), "carries on "+old.ID.String())
	return nil
}

func (m *model) discover(j *modelJob, dids []syntax.DID) (added int) {
	j.Listed = true
	for _, did := range dids {
		if j.work[did] == nil && !m.doneBefore(j, did) {
			j.work[did] = &modelWork{WorkRepo: jobs.WorkRepo{State: jobs.RepoFound}, owed: jobs.Owed{DID: did}, listed: map[place]bool{}}
			added++
		}
	}
	j.count()
	return added
}

// before is where to go on when all repos of a job that is carried on were looked at.
func (m *model) before(old *modelJob) retryWalk {
	if of, at, left := old.undone(); left {
		return retryWalk{of: of, at: at}
	}
	for _, older := range m.ancestors(old) {
		if !older.forgot && m.doubts(older) {
			return retryWalk{of: older.Seq}
		}
	}
	return retryWalk{done: true}
}

// doubtful reports whether there is anything in a job, or in those that it carries on,
// that was taken for read to the end, must not be, and is in no newer one.
func (m *model) doubtful(j *modelJob) bool {
	known := map[syntax.DID]bool{}
	for _, old := range append([]*modelJob{j}, m.ancestors(j)...) {
		for did, w := range old.work {
			if w.Assumed && m.distrusted[w.Host] && !known[did] {
				return true
			}
		}
		for did := range old.work {
			known[did] = true
		}
	}
	return false
}

// doneBefore reports whether the last word on a repo, of the jobs that one carries on, is
// that it is done.
func (m *model) doneBefore(j *modelJob, did syntax.DID) bool {
	w := m.lastRow(j, did)
	return w != nil && w.Class == jobs.ClassDone && !m.undone(w)
}

// lastRow is what the newest of the jobs that one carries on says of a repo.
func (m *model) lastRow(j *modelJob, did syntax.DID) *modelWork {
	for _, old := range m.ancestors(j) {
		if w := old.work[did]; w != nil {
			return w
		}
	}
	return nil
}

// undone reports whether a repo of a job is read by one that carries it on.
func (m *model) undone(w *modelWork) bool {
	return w.State != jobs.RepoSettled || w.Class == jobs.ClassFailed || (w.Assumed && m.distrusted[w.Host])
}

// ancestors are the jobs that a job carries on, the newest first, until one is not
// even known by name.
func (m *model) ancestors(j *modelJob) (list []*modelJob) {
	for of := j.RetryOf; of != 0 && !m.jobs[of-1].gone; of = m.jobs[of-1].RetryOf {
		list = append(list, m.jobs[of-1])
	}
	return list
}

func (m *model) discoverPage(j *modelJob, d jobs.Discovery) (int, error) {
	if err := j.open(); err != nil {
		return 0, err
	}
	j.cursors[d.Listing] = d.Cursor
	return m.discover(j, d.DIDs), nil
}

func (m *model) discoverHeld(j *modelJob) (bool, error) {
	if err := j.open(); err != nil {
		return false, err
	}
	if j.held.done {
		return true, nil
	}
	var dids []syntax.DID
	from := max(j.held.at, 1)
	to := min(int(from)-1+m.bound(10_000), len(m.repos))
	for _, r := range m.repos[from-1 : to] {
		if r.holds(j.Targets) {
			dids = append(dids, r.did)
		}
	}
	j.held = heldWalk{at: uint32(to + 1), done: to == len(m.repos)}
	m.discover(j, dids)
	return j.held.done, nil
}

func (m *model) discoverRetry(j *modelJob) (bool, error) {
	if err := j.open(); err != nil {
		return false, err
	}
	of, at, left := j.undone()
	if !left {
		return true, nil
	}
	old := m.jobs[of-1]
	if old.forgot {
		return false, jobs.ErrNothingLeft
	}
	var dids []syntax.DID
	looked := 0
	j.retry = retryWalk{done: true}
	for _, did := range sorted(old.work) {
		if did < at {
			continue
		}
		if looked == m.bound(5_000) {
			j.retry = retryWalk{of: of, at: did}
			break
		}
		looked++
		if m.undone(m.lastRow(j, did)) {
			dids = append(dids, did)
		}
	}
	if j.retry.done {
		j.retry = m.before(old)
	}
	m.discover(j, dids)
	return j.retry.done, nil
}

// undone is where the job has still to look for what it carries on, if it has.
func (j *modelJob) undone() (of uint64, at syntax.DID, is bool) {
	return cmp.Or(j.retry.of, j.RetryOf), j.retry.at, j.RetryOf != 0 && !j.retry.done
}

// carriedOn are the jobs whose repos an unfinished job needs to carry them on.
func (m *model) carriedOn() map[uint64]bool {
	needed := map[uint64]bool{}
	for _, j := range m.jobs {
		if j.Status.Final() || j.Discovered {
			continue
		}
		for _, old := range m.ancestors(j) {
			needed[old.Seq] = true
		}
	}
	return needed
}

func (j *modelJob) endDiscovery(reason string) error {
	if err := j.open(); err != nil {
		return err
	}
	j.Discovered, j.DiscoveryError = true, reason
	j.progress()
	return nil
}

// open tells why nothing is done for a job any more.
func (j *modelJob) open() error {
	switch {
	case j.gone:
		return store.ErrNotFound
	case j.Status.Final():
		return jobs.ErrStale
	}
	return nil
}

// covering is the newest unfinished job that reads a collection from the network.
func (m *model) covering(c syntax.NSID) *modelJob {
	for _, j := range slices.Backward(m.jobs) {
		if !j.Status.Final() && j.Request.Network() && j.covers(c) {
			return j
		}
	}
	return nil
}

func (j *modelJob) covers(c syntax.NSID) bool {
	return len(j.Targets) == 0 || slices.Contains(j.Targets, c)
}

func (m *model) track(c syntax.NSID) (added bool) {
	if added = !m.tracked[c]; added {
		m.tracked[c] = true
		m.note(api.ActTrack, c.String(), "")
	}
	return added
}

func (m *model) addCollection(c syntax.NSID, id uuid.UUID) (*modelJob, bool) {
	j := m.covering(c)
	added := m.track(c)
	if added && j == nil {
		j = m.cover(c, id, api.OriginRequest)
	}
	return j, added
}

func (m *model) coverCollection(c syntax.NSID, id uuid.UUID, origin api.Origin, last uint64) (*modelJob, error) {
	switch {
	case !m.tracked[c]:
		return nil, store.ErrNotFound
	case m.covering(c) != nil:
		return nil, jobs.ErrBusy
	case m.freshness(c).Last != last:
		return nil, jobs.ErrStale
	}
	return m.cover(c, id, origin), nil
}

func (m *model) cover(c syntax.NSID, id uuid.UUID, origin api.Origin) *modelJob {
	j := m.create(id, jobs.Request{Collection: c}, []syntax.NSID{c})
	j.Origin = origin
	m.note(api.ActCreateJob, id.String(), j.Covers())
	return j
}

func (m *model) removeCollection(c syntax.NSID, records bool) (int64, error) {
	if !m.tracked[c] {
		return 0, store.ErrNotFound
	}
	for _, j := range m.jobs {
		if !j.Status.Final() && j.covers(c) {
			return 0, jobs.ErrBusy
		}
	}
	delete(m.tracked, c)
	if !records {
		m.note(api.ActUntrack, c.String(), "its records are kept")
		return 0, nil
	}
	m.note(api.ActUntrack, c.String(), "its records are deleted")
	n := m.deleteRecords(index.Filter{Collection: c})
	m.note(api.ActDeleteRecords, index.Filter{Collection: c}.String(), fmt.Sprintf("%d records deleted", n))
	return n, nil
}

// putKey stores a key, and revokeKey makes it useless. There are too few here for
// any to be the last that opens everything.
func (m *model) putKey(secret string, k admin.APIKey) error {
	if m.keys[secret] != nil {
		return store.ErrExists
	}
	m.keys[secret] = &k
	m.note(api.ActCreateKey, k.ID.String(), k.String())
	return nil
}

func (m *model) revokeKey(id uuid.UUID) error {
	for _, k := range m.keys {
		switch {
		case k.ID != id:
			continue
		case k.RevokedAt.IsZero():
			k.RevokedAt = m.clock()
			m.note(api.ActRevokeKey, id.String(), k.String())
		}
		return nil
	}
	return store.ErrNotFound
}

func add(a, b index.Tally) index.Tally {
	return index.Tally{
		Records: a.Records + b.Records, Created: a.Created + b.Created, Updated: a.Updated + b.Updated,
		Deleted: a.Deleted + b.Deleted, Rejected: a.Rejected + b.Rejected,
	}
}
