package store_test

import (
	"fmt"
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/api"
	"appview/store/jobs"
)

// step is a kind of random change. It returns what it did.
type step struct {
	weight int
	do     func(*drive) string
}

var steps = []step{
	{6, (*drive).opCreate},
	{5, (*drive).opStart},
	{12, (*drive).opDiscover},
	{5, (*drive).opDiscoverHeld},
	{4, (*drive).opDiscoverRetry},
	{3, (*drive).opEndDiscovery},
	{24, (*drive).opRehost},
	{8, (*drive).opPostpone},
	{4, (*drive).opPutHost},
	{24, (*drive).opSave},
	{5, (*drive).opRestart},
	{40, (*drive).opSettle},
	{2, (*drive).opSettleHost},
	{10, (*drive).opMove},
	{10, (*drive).opFinish},
	{4, (*drive).opRetry},
	{1, (*drive).opDeny},
	{7, (*drive).opAllow},
	{3, (*drive).opDelete},
	{1, (*drive).opTrack},
	{3, (*drive).opAddCollection},
	{4, (*drive).opCover},
	{3, (*drive).opRemoveCollection},
	{4, (*drive).opKey},
	{4, (*drive).opReopen},
	{5, (*drive).opClock},
	{3, (*drive).opPrune},
	{8, (*drive).opIndex},
	{8, (*drive).opTogether},
	{24, (*drive).opRace},
	{50, (*drive).opRead},
	{4, (*drive).opWrapUp},
	{4, (*drive).opOpenAgain},
	{50, (*drive).opCrash},
	{12, (*drive).opCrashIndex},
}

// atomicSteps are the changes that are made in one transaction, unless it is too small.
var atomicSteps = []func(*drive) string{
	(*drive).opStart, (*drive).opDiscover, (*drive).opDiscover, (*drive).opDiscoverHeld, (*drive).opDiscoverRetry, (*drive).opEndDiscovery, (*drive).opRehost,
	(*drive).opPostpone, (*drive).opPutHost, (*drive).opSave, (*drive).opSave, (*drive).opRestart, (*drive).opSettle, (*drive).opSettle,
	(*drive).opSettleHost, (*drive).opMove, (*drive).opFinish, (*drive).opRetry, (*drive).opAllow, (*drive).opTrack,
	(*drive).opAddCollection, (*drive).opCover, (*drive).opKey, (*drive).opReopen,
}

// opCrashIndex ends the process in the middle of a run of the key index.
func (d *drive) opCrashIndex() string {
	d.openWith(1 + d.rng.IntN(2))
	c := pick(d, modelCollections)
	n, where := int32(d.rng.IntN(6)), int32(1+d.rng.IntN(2))
	d.passing.Store(n)
	d.crash.Store(where)
	for done, err := false, error(nil); !done && err == nil; {
		done, err = d.s.Index.IndexKeys(d.t.Context(), c)
	}
	d.crash.Store(0)
	d.passing.Store(0)
	if d.crashed.CompareAndSwap(true, false) {
		d.openWith(0)
	}
	return fmt.Sprintf("index keys of %s, and crash at commit %d", c, n+1)
}

// opCrash ends the process before or after the commit of a change, and opens the
// store in the next one.
func (d *drive) opCrash() string {
	if d.m.step > 0 {
		d.openWith(0)
	}
	was, where := d.m.clone(), int32(beforeCommit)
	if d.often(50) {
		where = afterCommit
	}
	d.crashing = true
	d.crash.Store(where)
	did := pick(d, atomicSteps)(d)
	d.crashing = false
	d.crash.Store(0)
	if !d.crashed.CompareAndSwap(true, false) {
		return did // there was nothing to commit
	}
	when := "after"
	if where == beforeCommit {
		d.m, when = was, "before"
	}
	d.met.note("crashed "+when+" a commit", nil)
	d.openWith(0)
	return "crash " + when + " the commit of: " + did
}

// opTogether makes several changes that may be committed as one group.
func (d *drive) opTogether() string {
	if d.m.step > 0 {
		// What one transaction cannot hold goes on after the others of its group.
		return d.opSettle()
	}
	d.together = true
	var did []string
	for range 2 + d.rng.IntN(6) {
		did = append(did, pick(d, []func(*drive) string{(*drive).opRehost, (*drive).opPostpone, (*drive).opSettle, (*drive).opSettle})(d))
	}
	d.together = false
	d.answers()
	return "together: " + strings.Join(did, " & ")
}

// opRace has several jobs read one repo in turns.
func (d *drive) opRace() string {
	type reading struct {
		j *modelJob
		o jobs.Owed
	}
	did, turns := pick(d, modelDIDs), []string(nil)
	for range 2 + d.rng.IntN(4) {
		var racing []reading
		for _, j := range d.m.jobs {
			if w := j.work[did]; !j.Status.Final() && w != nil && w.State == jobs.RepoOwed {
				racing = append(racing, reading{j, w.owed})
			}
		}
		if len(racing) == 0 {
			break
		}
		r := pick(d, racing)
		if d.often(60) {
			turns = append(turns, d.saves(r.j, r.o))
		} else {
			turns = append(turns, d.settles(r.j, r.o))
		}
	}
	return "race: " + strings.Join(turns, ", then ")
}

// opRead has a job read a repo to its end, in some steps, while it may change.
func (d *drive) opRead() string {
	j, o := d.row(true)
	if _, err := j.owes(o.Host, o.DID); err != nil || o.Host == "" {
		return d.opRefill()
	}
	var did []string
	for range d.rng.IntN(4) {
		did = append(did, d.saves(j, o))
		w, err := j.owes(o.Host, o.DID)
		if err != nil {
			break
		}
		o = w.owed
	}
	t := d.readToEnd(j, o)
	did = append(did, d.settlesAs(j, t))
	return "read: " + strings.Join(did, ", then ")
}

// opRefill ends the jobs that owe nothing, and makes work for another.
func (d *drive) opRefill() string {
	var did []string
	for _, j := range d.m.jobs {
		if !j.Status.Final() && j.TotalRepos == j.Processed && j.Reopened == 0 {
			did = append(did, d.ends(j), d.finishes(j))
		}
	}
	return strings.Join(append(did, d.opCreate()), ", ")
}

// opWrapUp brings a job to its end: everything that it owes is settled. At times that
// takes more than one look.
func (d *drive) opWrapUp() string {
	j := d.job()
	did := []string{d.starts(j), d.ends(j)}
	for range 2 {
		for _, name := range sorted(j.work) {
			w := j.work[name]
			if w.State == jobs.RepoFound && d.often(80) {
				did = append(did, d.rehosts(j, w.owed))
			}
			if w.State != jobs.RepoSettled && d.often(90) {
				did = append(did, d.settles(j, w.owed))
			}
		}
		did = append(did, d.finishes(j))
	}
	return "wrap up: " + strings.Join(did, ", ")
}

func (d *drive) opCreate() string {
	open := 0
	for _, j := range d.m.jobs {
		if !j.Status.Final() {
			open++
		}
	}
	if open >= 4 {
		return "nothing"
	}
	req, targets := jobs.Request{}, []syntax.NSID(nil)
	switch d.rng.IntN(4) {
	case 0:
		req.DID = pick(d, modelDIDs)
	case 1:
		req.Collection, targets = note, []syntax.NSID{note}
	case 2:
		targets = modelCollections[:2]
	}
	id := d.uuid()
	want := d.m.request(id, req, targets)
	got, err := d.s.Jobs.CreateJob(d.user(), id, req, targets)
	d.same("create job", err, nil, fact(got), fact(want.Job))
	did := "create " + fact(req)
	if d.often(70) {
		var found []syntax.DID
		for _, name := range modelDIDs {
			if d.often(75) {
				found = append(found, name)
			}
		}
		did += ", " + d.starts(want) + ", " + d.discovers(want, found)
		for _, name := range found {
			if d.often(60) {
				did += ", " + d.rehosts(want, want.work[name].owed)
			}
		}
	}
	return did
}

func (d *drive) opStart() string { return d.starts(d.job()) }

func (d *drive) starts(j *modelJob) string {
	if j.gone {
		return "nothing"
	}
	d.m.start(j)
	got, err := d.s.Jobs.StartJob(d.t.Context(), j.Seq)
	d.same("start job", err, nil, fact(got), fact(j.Job))
	return fmt.Sprintf("start %d", j.Seq)
}

func (d *drive) opDiscover() string {
	var dids []syntax.DID
	for range d.rng.IntN(6) {
		dids = append(dids, pick(d, modelDIDs))
	}
	return d.discovers(d.job(), dids)
}

func (d *drive) discovers(j *modelJob, dids []syntax.DID) string {
	page := jobs.Discovery{
		Listing: pick(d, listings), DIDs: dids,
		Cursor: jobs.Cursor{Cursor: fmt.Sprint(d.rng.IntN(100)), Pages: int64(d.rng.IntN(9)), Done: d.often(30)},
	}
	want, wantErr := d.m.discoverPage(j, page)
	got, err := d.s.Work.Discover(d.t.Context(), j.Seq, page)
	d.same("discover", err, wantErr, fact(got), fact(want))
	return fmt.Sprintf("discover for %d: %+v", j.Seq, page)
}

func (d *drive) opDiscoverHeld() string {
	j := d.job()
	want, wantErr := d.m.discoverHeld(j)
	got, err := d.s.Work.DiscoverHeld(d.t.Context(), j.Seq)
	d.same("discover held", err, wantErr, fact(got), fact(want))
	return fmt.Sprintf("discover held for %d", j.Seq)
}

func (d *drive) opDiscoverRetry() string {
	j := d.job()
	want, wantErr := d.m.discoverRetry(j)
	got, err := d.s.Work.DiscoverRetry(d.t.Context(), j.Seq)
	d.same("discover retry", err, wantErr, fact(got), fact(want))
	return fmt.Sprintf("discover what %d retries", j.Seq)
}

func (d *drive) opEndDiscovery() string { return d.ends(d.job()) }

func (d *drive) ends(j *modelJob) string {
	reason := ""
	if d.often(25) {
		reason = "the relay is down"
	}
	want := j.endDiscovery(reason)
	d.same("end discovery", d.s.Work.EndDiscovery(d.t.Context(), j.Seq, reason), want, "", "")
	return fmt.Sprintf("end discovery of %d: %s", j.Seq, reason)
}

func (d *drive) opRehost() string {
	j, o := d.row(d.often(15))
	return d.rehosts(j, o)
}

func (d *drive) rehosts(j *modelJob, o jobs.Owed) string {
	to := pick(d, modelHosts)
	d.submit("rehost", j.rehost(o.DID, o.Host, to), func(done func(error)) error {
		return d.s.Work.Rehost(d.t.Context(), j.Seq, o.DID, o.Host, to, done)
	})
	return fmt.Sprintf("rehost for %d: %s from %q to %s", j.Seq, o.DID, o.Host, to)
}

func (d *drive) opPostpone() string {
	j, o := d.row(d.often(80))
	o.Attempts, o.NotBefore, o.Reason, o.Detail = o.Attempts+1, d.m.clock().Add(time.Minute), "timeout", "it took too long"
	d.submit("postpone", j.postpone(o), func(done func(error)) error {
		return d.s.Work.Postpone(d.t.Context(), j.Seq, o, done)
	})
	return fmt.Sprintf("postpone for %d: %s at %q", j.Seq, o.DID, o.Host)
}

func (d *drive) opPutHost() string {
	j, host := d.job(), pick(d, modelHosts)
	b := jobs.Behaviour{Probes: d.rng.IntN(4), Error: "connection refused"}
	want := j.putHost(host, b)
	d.same("put host", d.s.Work.PutHost(d.t.Context(), j.Seq, host, b), want, "", "")
	return fmt.Sprintf("put host for %d: %s", j.Seq, host)
}

func (d *drive) opSave() string {
	j, o := d.row(true)
	return d.saves(j, o)
}

func (d *drive) saves(j *modelJob, o jobs.Owed) string {
	read, at := d.reading(j, o, d.often(20))
	want, wantErr := d.m.save(j, o.DID, read, at)
	got, err := d.s.Work.Save(d.t.Context(), j.Seq, o.DID, read, at)
	d.same("save", err, wantErr, fact(got), fact(want))
	return fmt.Sprintf("save for %d: %s at %q rev %s: %s", j.Seq, o.DID, o.Host, read.Rev, fact(at))
}

func (d *drive) opRestart() string {
	j, o := d.row(true)
	at := jobs.Position{First: rev(d.shown(o.DID).rev), Read: map[syntax.NSID]jobs.ReadUpTo{}, Pass: 1}
	want := j.restart(o.Host, o.DID, at)
	d.same("restart", d.s.Work.Restart(d.t.Context(), j.Seq, o.Host, o.DID, at), want, "", "")
	return fmt.Sprintf("restart for %d: %s at %q", j.Seq, o.DID, o.Host)
}

func (d *drive) opSettle() string {
	j, o := d.row(d.often(85))
	return d.settles(j, o)
}

func (d *drive) settles(j *modelJob, o jobs.Owed) string {
	return d.settlesAs(j, d.settlement(j, o))
}

func (d *drive) settlesAs(j *modelJob, t jobs.Settlement) string {
	want, what := d.m.settle(j, t), "settle"
	if len(t.Kept) > 0 {
		what = "settle as it is kept"
	}
	if w := j.work[t.DID]; want == nil && w.Reason == "too_large" {
		what = "settle as too large"
	}
	d.submit(what, want, func(done func(error)) error { return d.s.Work.Settle(d.t.Context(), j.Seq, t, done) })
	return fmt.Sprintf("settle for %d: %s at %q rev %s account %q purge %t complete %v kept %v exact %t", j.Seq, t.DID, t.Reading.Host, t.Reading.Rev, t.Account, t.Purge, t.Complete, t.Kept, t.Exact)
}

func (d *drive) opSettleHost() string {
	j, host := d.job(), pick(d, modelHosts)
	v := jobs.Verdict{Class: jobs.ClassFailed, Reason: "host_down", Detail: "refused"}
	want, wantErr := d.m.settleHost(j, host, v)
	got, err := d.s.Work.SettleHost(d.t.Context(), j.Seq, host, v)
	d.same("settle host", err, wantErr, fact(got), fact(want))
	return fmt.Sprintf("give up for %d: %s", j.Seq, host)
}

func (d *drive) opMove() string {
	return d.moves(d.job(), pick(d, []api.Status{api.StatusCancelling, api.StatusPausing, api.StatusPausing, api.StatusRunning, api.StatusRunning}))
}

func (d *drive) moves(j *modelJob, to api.Status) string {
	if j.gone {
		return "nothing"
	}
	want := d.m.move(j, to)
	got, err := d.s.Jobs.MoveJob(d.user(), j.ID, to)
	if want == nil {
		d.same("move to "+string(to), err, nil, fact(got), fact(j.Job))
	} else {
		d.same("move to "+string(to), err, want, "", "")
	}
	return fmt.Sprintf("move %d to %s", j.Seq, to)
}

func (d *drive) opFinish() string { return d.finishes(d.job()) }

func (d *drive) finishes(j *modelJob) string {
	if j.gone {
		return "nothing"
	}
	d.m.finish(j, "summary")
	got, err := d.s.Jobs.FinishJob(d.t.Context(), j.Seq, func(jobs.Job) string { return "summary" })
	d.same("finish", err, nil, fact(got), fact(j.Job))
	return fmt.Sprintf("finish %d", j.Seq)
}

func (d *drive) opRetry() string {
	old, id := pick(d, d.m.jobs), d.uuid()
	want := d.m.retryOf(old, id)
	got, err := d.s.Jobs.RetryJob(d.user(), old.ID, id)
	if want == nil {
		d.same("retry", err, nil, fact(got), fact(d.m.job(id).Job))
	} else {
		d.same("retry", err, want, "", "")
	}
	return fmt.Sprintf("retry %d", old.Seq)
}
