package polite

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"time"

	"appview/internal/network/outcome"
)

const (
	// saveDelay is how long a change waits for more of them before they are saved.
	saveDelay = 200 * time.Millisecond
	// expireEvery is the time between two checks of which pauses are over, and whether the
	// wall clock was set, which they are measured by when the process has ended.
	expireEvery = time.Second
	// maxSetBack is how far the wall clock may move before that counts as set.
	maxSetBack = time.Second
	// maxPauses bounds the hosts of which something is saved. Only who makes hosts up
	// has so many that want silence.
	maxPauses = 10_000
)

// pauseRow is what is saved of a host for the next process. Durations are those that were
// left at the time of the row.
type pauseRow struct {
	Noted  time.Time     `json:"noted"`          // the time of the row, by the wall clock
	Left   time.Duration `json:"left,omitempty"` // of the pause that it asked for
	Wants  time.Duration `json:"wants,omitempty"`
	Said   string        `json:"said,omitempty"`
	Rate   float64       `json:"rate,omitempty"`   // requests a second that its refusals have left us
	Quotas []quotaRow    `json:"quotas,omitempty"` // that are spent
	Down   []downRow     `json:"down,omitempty"`   // breakers that are open
}

type quotaRow struct {
	Scope Scope         `json:"lane"`
	Left  time.Duration `json:"left"`
}

type downRow struct {
	Circuit Circuit       `json:"way"`
	Left    time.Duration `json:"left"` // until the next probe
	Wait    time.Duration `json:"wait"`
	Probes  int           `json:"probes,omitempty"`
	Stuck   string        `json:"stuck,omitempty"`
	Last    string        `json:"last,omitempty"`
}

// longest is how long anything of it lasts.
func (r pauseRow) longest() time.Duration {
	d := r.Left
	for _, q := range r.Quotas {
		d = max(d, q.Left)
	}
	for _, b := range r.Down {
		d = max(d, b.Left)
	}
	return d
}

// pauseRow is what is to be saved of the host, and whether there is anything.
func (g *gate) pauseRow(now time.Time) (pauseRow, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	r := pauseRow{Noted: now.Round(0).UTC()}
	if g.until.After(now) {
		r.Left, r.Said = g.until.Sub(now), g.pauseAnswer
		if g.requestedUntil.After(now) {
			r.Wants = g.requestedUntil.Sub(now)
		}
	}
	if g.backoff < g.base {
		r.Rate = g.backoff
	}
	for s := range scopes {
		if spent := g.quotas[s].spentUntil; spent.After(now) {
			r.Quotas = append(r.Quotas, quotaRow{s, spent.Sub(now)})
		}
	}
	for c := range circuits {
		if b := &g.breakers[c]; b.down && !b.halfOpen && b.next.After(now) {
			d := downRow{Circuit: c, Left: b.next.Sub(now), Wait: b.wait, Probes: b.probes, Stuck: b.stuck}
			if b.last != nil {
				d.Last = outcome.OneLine(b.last.Error())
			}
			r.Down = append(r.Down, d)
		}
	}
	return r, r.longest() > 0
}

// restore gives a new gate the state of an earlier process.
func (g *gate) restore(r pauseRow, now time.Time) {
	// A clock that was set back meanwhile has nobody wait longer than was left.
	passed := max(now.Round(0).Sub(r.Noted), 0)
	left := func(d time.Duration) time.Time { return now.Add(min(d-passed, maxPause)) }
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pauseAnswer = r.Said
	if r.Left > passed {
		g.until = left(r.Left)
		if r.Wants > passed {
			g.requestedUntil = now.Add(r.Wants - passed)
		}
	}
	if r.Rate > 0 && r.Rate < g.base {
		g.backoff, g.rateChanged = r.Rate, g.until
	}
	for _, q := range r.Quotas {
		if q.Scope >= 0 && q.Scope < scopes && q.Left > passed {
			s := &g.quotas[q.Scope]
			s.spentUntil, s.fullAt, s.rate = left(q.Left), left(q.Left), g.base
		}
	}
	for _, d := range r.Down {
		if d.Circuit < 0 || d.Circuit >= circuits || d.Left <= passed {
			continue
		}
		b := &g.breakers[d.Circuit]
		b.down, b.next, b.stuck, b.probes = true, left(d.Left), d.Stuck, d.Probes
		b.wait = min(max(d.Wait, b.first), b.longest)
		b.last = errors.New(cmp.Or(d.Last, "it did not answer before the restart"))
	}
}

// pauses is of which hosts a row is saved, and of which the row is out of date.
type pauses struct {
	changed chan struct{} // a host has become dirty

	saving sync.Mutex // one at a time: the latest is saved last

	mu     sync.Mutex
	dirty  map[Host]struct{}
	saved  map[Host]time.Time // until when the row matters
	offset time.Duration      // of the wall clock to that of the process
}

func newPauses() *pauses {
	return &pauses{changed: make(chan struct{}, 1), dirty: map[Host]struct{}{}, saved: map[Host]time.Time{}}
}

// markDirty has the row of a host be saved anew.
func (p *pauses) markDirty(host Host) {
	p.mu.Lock()
	p.dirty[host] = struct{}{}
	p.mu.Unlock()
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// Resume has hosts be left alone for as long as they were to be when an earlier process
// ended, by the rows that it saved. It is to be called before anything is asked.
func (gs *Gates) Resume(rows map[string][]byte) {
	now := gs.cfg.Now()
	for host, data := range rows {
		var r pauseRow
		h := Host(host)
		gs.pauses.markDirty(h) // what is over is forgotten
		gs.pauses.saved[h] = now
		if json.Unmarshal(data, &r) != nil {
			continue
		}
		if passed := max(now.Round(0).Sub(r.Noted), 0); r.longest() <= passed {
			continue
		}
		g := gs.gates.retain(h, now)
		g.restore(r, now)
		gs.gates.release(g, now)
	}
}

// PersistPauses saves what is to be known of hosts after a restart whenever it changes,
// until ctx ends. save is given a row of JSON for each host, nil for one of which there is
// nothing to know any more. What it could not save it is given again.
func (gs *Gates) PersistPauses(ctx context.Context, save func(context.Context, map[string][]byte) error) {
	sweep := time.NewTicker(expireEvery)
	defer sweep.Stop()
	for {
		select {
		case <-gs.pauses.changed:
			late := time.NewTimer(saveDelay)
			select {
			case <-late.C:
			case <-ctx.Done():
				late.Stop()
				return
			}
		case <-sweep.C:
		case <-ctx.Done():
			return
		}
		if err := gs.SavePauses(ctx, save); err != nil && ctx.Err() == nil {
			gs.cfg.Log.WarnContext(ctx, "what hosts have asked for could not be noted, it is tried again", "err", err)
		}
	}
}

// SavePauses saves what has changed, as PersistPauses does.
func (gs *Gates) SavePauses(ctx context.Context, save func(context.Context, map[string][]byte) error) error {
	p := gs.pauses
	p.saving.Lock()
	defer p.saving.Unlock()
	now := gs.cfg.Now()
	rows := map[string][]byte{}
	for host := range p.takeDirty(now, gs.suspend.offset()) {
		if row := gs.rowOf(host, now); row != nil || !p.saved[host].IsZero() {
			rows[string(host)] = row
		}
	}
	if len(rows) == 0 {
		return nil
	}
	if err := save(ctx, rows); err != nil {
		for host := range rows {
			p.markDirty(Host(host))
		}
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for host, row := range rows {
		if row == nil {
			delete(p.saved, Host(host))
		}
	}
	return nil
}

// rowOf is the row to be saved of a host, nil if that is none, or if there are too many
// rows. The caller is saving.
func (gs *Gates) rowOf(host Host, now time.Time) []byte {
	g := gs.gates.get(host)
	if g == nil {
		return nil
	}
	r, is := g.pauseRow(now)
	p := gs.pauses
	p.mu.Lock()
	defer p.mu.Unlock()
	if !is || p.saved[host].IsZero() && len(p.saved) >= maxPauses && !slices.Contains(gs.cfg.Services, host) {
		return nil
	}
	data, err := json.Marshal(r)
	if err != nil {
		return nil
	}
	p.saved[host] = now.Add(r.longest())
	return data
}

// takeDirty are the hosts whose rows may be out of date: those that have changed, those
// whose pauses are over, and all if the wall clock was set.
func (p *pauses) takeDirty(now time.Time, offset time.Duration) map[Host]struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	moved := (offset - p.offset).Abs() > maxSetBack
	if moved {
		p.offset = offset
	}
	for host, until := range p.saved {
		if moved || !until.After(now) {
			p.dirty[host] = struct{}{}
		}
	}
	dirty := p.dirty
	p.dirty = map[Host]struct{}{}
	return dirty
}
