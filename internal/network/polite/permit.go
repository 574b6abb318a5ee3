package polite

import (
	"context"
	"net/http"
	"time"
)

// Permit is a request that may be sent. It takes one of the host's slots until Release.
// Whoever has it says what came of the request: NoAnswer, or Answered and then one of Alive,
// Failed and Abandon.
type Permit struct {
	gates       *Gates
	gate        *gate
	question    Question
	probe       bool // of the breaker
	outageProbe bool // of our own network
	epoch       clockEpoch
	began       time.Time
	settled     bool
}

// Acquire waits until a question may be asked, for as long as that is soon. Its error is a
// *Parked, or the context's.
func (gs *Gates) Acquire(ctx context.Context, q Question) (*Permit, error) {
	g := gs.gates.retain(q.Host, gs.cfg.Now())
	probe, err := g.acquire(ctx, q, gs.cfg.Now)
	if err != nil {
		gs.gates.release(g, gs.cfg.Now())
		return nil, err
	}
	p := &Permit{gates: gs, gate: g, question: q, probe: probe}
	if p.outageProbe, err = gs.outage.admit(q.Host, gs.cfg.Now()); err != nil {
		p.Release()
		return nil, err
	}
	p.epoch, _ = gs.suspend.check()
	p.began = gs.cfg.Now()
	return p, nil
}

// Release gives the slot back. A request of which nothing was said has told nothing: its
// caller left, or it was not sent.
func (p *Permit) Release() {
	if !p.settled {
		p.Abandon()
		p.gates.outage.abandon(p.outageProbe)
	}
	p.gate.release()
	p.gates.gates.release(p.gate, p.gates.cfg.Now())
}

// Began is when the permit was given.
func (p *Permit) Began() time.Time { return p.began }

// Paused reports whether the host has asked for a pause since.
func (p *Permit) Paused() bool { return p.gate.isPaused(p.question.Scope, p.gates.cfg.Now()) }

// Parked is the error of a request that the pause kept from being sent.
func (p *Permit) Parked() *Parked {
	g := p.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	return &Parked{Host: g.host, Until: g.pause(p.question.Scope), Why: WhyRateLimited, Answer: g.pauseReason(p.question.Scope)}
}

// Refused reports whether an answer asks to come back later: 429, or a 503 that says when.
// A 503 that does not is a broken host. It returns the error of the call, or nil.
func (p *Permit) Refused(resp *http.Response) *Parked {
	now := p.gates.cfg.Now()
	pause := readPause(resp.Header, now)
	if resp.StatusCode != http.StatusTooManyRequests &&
		(resp.StatusCode != http.StatusServiceUnavailable || pause <= 0 || resp.Header.Get("Retry-After") == "") {
		return nil
	}
	return p.gate.refusedWith(resp.StatusCode, now, pause, p.gates.cfg.Pause)
}

// ReadQuota notes what the header of an answer says of the host's quota, if anything.
func (p *Permit) ReadQuota(h http.Header) {
	now := p.gates.cfg.Now()
	p.gate.recordAnswer(p.question.Scope, now, readQuota(h, now))
}

// NoAnswer says that no answer came, because of cause. It returns a *Parked when that was
// our own network's fault, and else counts err as a failure of the host.
func (p *Permit) NoAnswer(ctx context.Context, cause, err error) *Parked {
	p.settled = true
	return p.fail(ctx, p.outageProbe, cause, err)
}

func (p *Permit) fail(ctx context.Context, outageProbe bool, cause, err error) *Parked {
	now := p.gates.cfg.Now
	a := attempt{p.question.Host, p.began, outageProbe, p.gates.suspend.suspectedSince(p.epoch), cause}
	if parked := p.gates.outage.failure(ctx, a, now); parked != nil {
		p.Abandon()
		return parked
	}
	p.count(now(), err)
	return nil
}

// Answered says that an answer came, so that our own network is there.
func (p *Permit) Answered(ctx context.Context) {
	p.settled = true
	p.gates.outage.answered(ctx, p.question.Host, p.gates.cfg.Now())
}

// Cut says that the answer did not come to its end. It returns as NoAnswer does.
func (p *Permit) Cut(ctx context.Context, err error) *Parked { return p.fail(ctx, false, err, err) }

// Failed says that the answer was not the host's own: err is counted as a failure.
func (p *Permit) Failed(err error) { p.count(p.gates.cfg.Now(), err) }

// Alive says that the host itself has answered, whatever it said.
func (p *Permit) Alive() {
	g := p.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	b := &g.breakers[p.question.Circuit]
	wasDown := b.down
	b.alive(p.question.Op, p.probe)
	if wasDown {
		g.changed()
	}
}

// count counts a failure to the breaker.
func (p *Permit) count(now time.Time, err error) {
	g := p.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	b := &g.breakers[p.question.Circuit]
	wasDown := b.down
	b.failure(now, p.question.Op, p.question.Subject, p.probe, err)
	if b.down {
		g.changed()
	}
	if !wasDown && b.down {
		g.wakeWaiters() // whoever queues for a slot need not
	}
}

// Abandon says that nothing was learned of the host.
func (p *Permit) Abandon() {
	g := p.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	g.breakers[p.question.Circuit].abandon(p.probe)
}
