package backfill

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"appview/backfill/read"
	"appview/internal/network"
	"appview/internal/network/outcome"
	"appview/store/jobs"
)

const (
	// silenceTicks is how many times the silence of hosts is looked at until it has
	// lasted too long: twice a second, in three minutes.
	silenceTicks = 360
	// silenceStep bounds what one look adds to a silence, as a share of what is too
	// long: a machine that slept, or was busy, has not listened.
	silenceStep = 18
	// recheckAfter is how many times as long as a silence may last the DID documents of
	// a host's repos are not looked at again.
	recheckAfter = 10
)

// silence is for how long none of the hosts that a job still needs has been healthy.
// It is counted for each of them from the first request to it, and for all of them
// anew from every sign of health of any.
type silence struct {
	mu     sync.Mutex
	hosts  map[string]*silentHost // those that were asked
	signed time.Time              // the latest sign of health of any
	sign   time.Time              // the latest sign that this job has seen itself
	budget float64                // documents that can still be looked at in this silence
	plc    time.Duration          // for how long the directory has been waited for
}

// silentHost is a host that was asked and still owes an answer.
type silentHost struct {
	lasted  time.Duration // the silence
	excused time.Time     // it does not grow before
	seen    string        // the last failure
	checked time.Time     // when the documents of its repos were looked at
	busy    bool          // they are being looked at, or the host is being given up
	verdict *jobs.Verdict // why it is to be given up, whatever others do
}

// host is the entry of a host; the caller holds the lock.
func (s *silence) host(host string) *silentHost {
	if s.hosts == nil {
		s.hosts = map[string]*silentHost{}
	}
	h := s.hosts[host]
	if h == nil {
		h = &silentHost{}
		s.hosts[host] = h
	}
	return h
}

// ask notes that a host is asked.
func (s *silence) ask(host string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.host(host)
}

// excuse notes that a host is not asked before some time: it, or another that it led
// to, has asked us to wait, or another job is reading the repo.
func (s *silence) excuse(host string, until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.hosts[host]; h != nil && until.After(h.excused) {
		h.excused = until
	}
}

// fail notes a failure of a host, for what is said of it when it is given up.
func (s *silence) fail(host, what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.hosts[host]; h != nil {
		h.seen = what
	}
}

// spend reports whether so many documents can be looked at within a silence, and counts
// them.
func (s *silence) spend(n int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if float64(n) > s.budget {
		return n <= checkSample
	}
	s.budget -= float64(n)
	return true
}

// judge notes that a host is to be given up, whatever others do.
func (s *silence) judge(host string, v jobs.Verdict) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.host(host).verdict = &v
}

// healthy notes a sign of health of a host.
func (w *worker) healthy(host string) {
	now := w.b.now()
	w.b.health.note(host, now)
	w.silence.mu.Lock()
	defer w.silence.mu.Unlock()
	w.silence.sign = now
	if h := w.silence.hosts[host]; h != nil {
		h.verdict = nil
	}
}

// count lets dt pass for the hosts that are needed, or nothing if halted. It forgets
// the others.
func (w *worker) count(now time.Time, dt time.Duration, halted bool) {
	needed := w.queues.owing()
	if !w.webResolved.Load() {
		needed = append(needed, webDIDs)
	}
	latest := w.b.health.latest(needed)
	is := make(map[string]bool, len(needed))
	for _, host := range needed {
		is[host] = true
	}
	s := &w.silence
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.hosts, func(host string, h *silentHost) bool { return !is[host] && !h.busy })
	if s.sign.After(latest) {
		latest = s.sign
	}
	anew := latest.After(s.signed)
	if anew {
		s.signed, s.budget = latest, w.checkBudget()
	}
	for _, h := range s.hosts {
		switch {
		case anew:
			h.lasted = min(max(now.Sub(latest), 0), dt)
		case !halted && now.After(h.excused):
			h.lasted += dt
		}
	}
}

// checkBudget is how many documents can be looked at while a silence lasts.
func (w *worker) checkBudget() float64 {
	return w.b.cfg.Network.PLCRPS() * w.b.cfg.Silence.Seconds()
}

// halted reports whether something else is waited for than hosts: our own network, the
// disk, the listing of repos, or the directory.
func (w *worker) halted(dt time.Duration) bool {
	if !w.listed.Load() || !w.plcResolved.Load() || w.b.cfg.Network.Outage() || w.b.cfg.Store.DiskFull() {
		return true
	}
	if !w.b.cfg.Network.DirectoryParked() && w.b.directoryParked() == nil {
		return false
	}
	w.silence.mu.Lock()
	defer w.silence.mu.Unlock()
	w.silence.plc += dt
	return w.silence.plc <= maxLimited
}

// watchSilence gives up what is owed at hosts when none of those that the job still
// needs has been healthy for too long, until ctx ends.
func (w *worker) watchSilence(ctx context.Context) error {
	g, own := errgroup.WithContext(ctx)
	g.Go(func() error { return w.tickSilence(own, g) })
	return stopped(ctx, g.Wait())
}

// tickSilence counts the silence of hosts, and has g do what it asks for.
func (w *worker) tickSilence(ctx context.Context, g *errgroup.Group) error {
	limit := w.b.cfg.Silence
	tick := time.NewTicker(w.b.tick())
	defer tick.Stop()
	c := &checks{plc: semaphore.NewWeighted(checkWidth), web: semaphore.NewWeighted(checkWidth)}
	w.silence.mu.Lock()
	w.silence.budget = w.checkBudget()
	w.silence.mu.Unlock()
	for last := w.b.now(); ; {
		select {
		case <-tick.C:
		case <-w.judged:
		case <-ctx.Done():
			return ctx.Err()
		}
		now := w.b.now()
		dt := min(max(now.Sub(last), 0), limit/silenceStep)
		last = now
		w.count(now, dt, w.halted(dt))
		w.b.health.prune(now.Add(-2 * limit))
		lead, err := w.lead(ctx)
		if err != nil {
			return err
		}
		for _, r := range w.ripe(now, lead) {
			g.Go(func() error { return w.handle(ctx, c, r) })
		}
	}
}

// minTick keeps tests with short silences from looking all the time.
const minTick = 10 * time.Millisecond

// tick is how often the silence of hosts is looked at.
func (b *Backfill) tick() time.Duration { return max(b.cfg.Silence/silenceTicks, minTick) }

// ripeHost is a host that something is to be done about.
type ripeHost struct {
	host   string
	giveUp *jobs.Verdict // nil: the documents of its repos are to be looked at
}

// ripe are the hosts whose silence has lasted so long that the documents of their repos
// are to be looked at, or that it is too long. They are busy from here on.
func (w *worker) ripe(now time.Time, lead time.Duration) (list []ripeHost) {
	limit := w.b.cfg.Silence
	w.silence.mu.Lock()
	defer w.silence.mu.Unlock()
	for host, h := range w.silence.hosts {
		checked := host == webDIDs || !h.checked.IsZero() && now.Sub(h.checked) < recheckAfter*limit
		r := ripeHost{host: host, giveUp: h.verdict}
		if h.verdict == nil && h.lasted+w.b.tick() >= limit { // it would be too long at the next look
			r.giveUp = w.silent(host, h.seen)
		}
		switch {
		case h.busy, r.giveUp == nil && (checked || h.lasted < max(limit-lead, limit/minLead)):
			continue
		case !checked:
			r.giveUp = nil
		}
		h.busy = true
		list = append(list, r)
	}
	return list
}

// minLead keeps short silences from having the documents looked at: it is not done in
// the first tenth of what is too long.
const minLead = 10

// lead is how long before its end a silence has the documents looked at: as long as
// that takes if it is done for all that the job owes, and a little more.
func (w *worker) lead(ctx context.Context) (time.Duration, error) {
	job, err := w.b.cfg.Store.Jobs.Job(ctx, w.id)
	limit := w.b.cfg.Silence
	takes := 1.25 * float64(max(job.TotalRepos-job.Processed, 0)) / w.b.cfg.Network.PLCRPS()
	return time.Duration(min(takes, limit.Seconds())*float64(time.Second)) + limit/webShare, err
}

// silent is the verdict on a host that has given nothing for too long.
func (w *worker) silent(host, seen string) *jobs.Verdict {
	reason, state := outcome.ReasonTimeout, w.b.cfg.Network.HostState(network.Host(host))
	switch {
	case host == webDIDs:
		reason = outcome.ReasonDIDLookup
	case state.Down:
		reason = outcome.ReasonHostDown
	}
	if state.LastErr != nil {
		seen = read.Detail(state.LastErr)
	}
	text := fmt.Sprintf("nothing was got for %s, and no other host was left to read from", w.b.cfg.Silence)
	if seen != "" {
		text += ": " + seen
	}
	return w.verdict(reason, read.Detail(errors.New(text)))
}
