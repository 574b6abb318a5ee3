package network

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"appview/network/outcome"
)

const (
	// pausesEvery is how long what has changed of pauses waits for more of it before it is
	// handed over.
	pausesEvery = 200 * time.Millisecond
	// pausesSwept is how often it is looked at which of them are over, and whether the
	// wall clock was set, which they are measured by when the process has ended.
	pausesSwept = time.Second
	// maxSetBack is how far the wall clock may move before that counts as set.
	maxSetBack = time.Second
	// maxPauses bounds the hosts of which something is remembered. Only who makes hosts up
	// has so many that want silence.
	maxPauses = 10_000
)

// pauseRow is what is remembered of a host when the process ends. Durations are those
// that were left when it was noted.
type pauseRow struct {
	Noted  time.Time     `json:"noted"`          // by the wall clock
	Left   time.Duration `json:"left,omitempty"` // of the pause that it asked for
	Wants  time.Duration `json:"wants,omitempty"`
	Said   string        `json:"said,omitempty"`
	Rate   float64       `json:"rate,omitempty"`   // requests a second that its refusals have left us
	Quotas []quotaRow    `json:"quotas,omitempty"` // that are spent
	Down   []downRow     `json:"down,omitempty"`   // breakers that are open
}

type quotaRow struct {
	Lane lane          `json:"lane"`
	Left time.Duration `json:"left"`
}

type downRow struct {
	Way    way           `json:"way"`
	Left   time.Duration `json:"left"` // until the next probe
	Wait   time.Duration `json:"wait"`
	Probes int           `json:"probes,omitempty"`
	Stuck  string        `json:"stuck,omitempty"`
	Last   string        `json:"last,omitempty"`
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

// pauseRow is what is to be remembered of the host, and whether there is anything.
func (g *gate) pauseRow(now time.Time) (pauseRow, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	r := pauseRow{Noted: now.Round(0).UTC()}
	if g.until.After(now) {
		r.Left, r.Said = g.until.Sub(now), g.said
		if g.asked.After(now) {
			r.Wants = g.asked.Sub(now)
		}
	}
	if g.backoff < g.base {
		r.Rate = g.backoff
	}
	for l := range lanes {
		if spent := g.quotas[l].spent; spent.After(now) {
			r.Quotas = append(r.Quotas, quotaRow{l, spent.Sub(now)})
		}
	}
	for w := range ways {
		if b := &g.breakers[w]; b.down && !b.half && b.next.After(now) {
			d := downRow{Way: w, Left: b.next.Sub(now), Wait: b.wait, Probes: b.probes, Stuck: b.stuck}
			if b.last != nil {
				d.Last = outcome.OneLine(b.last.Error())
			}
			r.Down = append(r.Down, d)
		}
	}
	return r, r.longest() > 0
}

// resume has a new gate go on where that of an earlier process was.
func (g *gate) resume(r pauseRow, now time.Time) {
	// A clock that was set back meanwhile has nobody wait longer than was left.
	passed := max(now.Round(0).Sub(r.Noted), 0)
	left := func(d time.Duration) time.Time { return now.Add(min(d-passed, maxPause)) }
	g.mu.Lock()
	defer g.mu.Unlock()
	g.said = r.Said
	if r.Left > passed {
		g.until = left(r.Left)
		if r.Wants > passed {
			g.asked = now.Add(r.Wants - passed)
		}
	}
	if r.Rate > 0 && r.Rate < g.base {
		g.backoff, g.eased = r.Rate, g.until
	}
	for _, q := range r.Quotas {
		if q.Lane >= 0 && q.Lane < lanes && q.Left > passed {
			g.quotas[q.Lane].spent, g.quotas[q.Lane].end, g.quotas[q.Lane].rate = left(q.Left), left(q.Left), g.base
		}
	}
	for _, d := range r.Down {
		if d.Way < 0 || d.Way >= ways || d.Left <= passed {
			continue
		}
		b := &g.breakers[d.Way]
		b.down, b.next, b.stuck, b.probes = true, left(d.Left), d.Stuck, d.Probes
		b.wait = min(max(d.Wait, b.first), b.longest)
		b.last = errors.New(cmp.Or(d.Last, "it did not answer before the restart"))
	}
}

// pauses is which hosts are to be remembered, and of which what is remembered is out of
// date.
type pauses struct {
	changed chan struct{} // something is out of date

	saving sync.Mutex // by one at a time: the latest is handed over last

	mu     sync.Mutex
	stale  map[Host]struct{}
	kept   map[Host]time.Time // until when, of those that were handed over
	offset time.Duration      // of the wall clock to that of the process
}

func newPauses() *pauses {
	return &pauses{changed: make(chan struct{}, 1), stale: map[Host]struct{}{}, kept: map[Host]time.Time{}}
}

// note has a host be looked at.
func (p *pauses) note(host Host) {
	p.mu.Lock()
	p.stale[host] = struct{}{}
	p.mu.Unlock()
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// Resume has hosts be left alone for as long as they were to be when an earlier process
// ended, by what KeepPauses had handed over. It is to be called before anything is asked.
func (c *Client) Resume(rows map[string][]byte) {
	now := c.cfg.Now()
	for host, data := range rows {
		var r pauseRow
		h := Host(host)
		c.pauses.note(h) // what is over is forgotten
		c.pauses.kept[h] = now
		if json.Unmarshal(data, &r) != nil {
			continue
		}
		if passed := max(now.Round(0).Sub(r.Noted), 0); r.longest() <= passed {
			continue
		}
		g := c.gates.take(h, now)
		g.resume(r, now)
		c.gates.give(g, now)
	}
}

// KeepPauses hands over what is to be known of hosts after a restart whenever it changes,
// until ctx ends. save is given a row of JSON for each host, nil for one of which there is
// nothing to know any more. What it has not taken it is given again.
func (c *Client) KeepPauses(ctx context.Context, save func(context.Context, map[string][]byte) error) {
	sweep := time.NewTicker(pausesSwept)
	defer sweep.Stop()
	for {
		select {
		case <-c.pauses.changed:
			late := time.NewTimer(pausesEvery)
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
		if err := c.SavePauses(ctx, save); err != nil && ctx.Err() == nil {
			c.cfg.Log.WarnContext(ctx, "what hosts have asked for could not be noted, it is tried again", "err", err)
		}
	}
}

// SavePauses hands over what has changed, as KeepPauses does.
func (c *Client) SavePauses(ctx context.Context, save func(context.Context, map[string][]byte) error) error {
	p := c.pauses
	p.saving.Lock()
	defer p.saving.Unlock()
	now := c.cfg.Now()
	rows := map[string][]byte{}
	for host := range p.takeStale(now, c.jumps.offset()) {
		if row := c.rowOf(host, now); row != nil || !p.kept[host].IsZero() {
			rows[string(host)] = row
		}
	}
	if len(rows) == 0 {
		return nil
	}
	if err := save(ctx, rows); err != nil {
		for host := range rows {
			p.note(Host(host))
		}
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for host, row := range rows {
		if row == nil {
			delete(p.kept, Host(host))
		}
	}
	return nil
}

// rowOf is what is to be remembered of a host, nil if that is nothing, or if there are
// too many of which something is. The caller is saving.
func (c *Client) rowOf(host Host, now time.Time) []byte {
	g := c.gates.look(host)
	if g == nil {
		return nil
	}
	r, is := g.pauseRow(now)
	p := c.pauses
	p.mu.Lock()
	defer p.mu.Unlock()
	if !is || p.kept[host].IsZero() && len(p.kept) >= maxPauses && host != c.relay && host != c.plc {
		return nil
	}
	data, err := json.Marshal(r)
	if err != nil {
		return nil
	}
	p.kept[host] = now.Add(r.longest())
	return data
}

// takeStale are the hosts of which what is remembered may be out of date: that have
// changed, those that are over, and all if the wall clock was set.
func (p *pauses) takeStale(now time.Time, offset time.Duration) map[Host]struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	moved := (offset - p.offset).Abs() > maxSetBack
	if moved {
		p.offset = offset
	}
	for host, until := range p.kept {
		if moved || !until.After(now) {
			p.stale[host] = struct{}{}
		}
	}
	stale := p.stale
	p.stale = map[Host]struct{}{}
	return stale
}
