package transport

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"appview/internal/network/outcome"
	"appview/internal/network/polite"
)

const (
	// maxFailure is the longest text of a failure to get any answer.
	maxFailure = 300
	// addressFullWait is the least that a host waits whose address has no free slot.
	addressFullWait = 2 * time.Second
)

// exchange is one request and its answer: the one place where anything is sent.
// It returns the answer, or where a redirect points, or an error.
func (c *Client) exchange(ctx context.Context, q Request) (*Answer, string, error) {
	permit, err := c.cfg.Gates.Acquire(ctx, q.Question)
	if err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("%s at %s: %w", q.Op, q.Host, ctx.Err())
		}
		return nil, "", err
	}
	defer permit.Release()
	r, err := c.send(ctx, permit, q)
	c.observe(ctx, q.Host, r, err, c.cfg.Now().Sub(permit.Began()))
	if err != nil {
		blame, fail := c.sendFailed(ctx, permit, q, err)
		if blame {
			if parked := permit.NoAnswer(ctx, err, copyOf(fail)); parked != nil {
				return nil, "", parked
			}
		}
		return nil, "", fail
	}
	permit.Answered(ctx)
	a, next, alive, err := c.classify(ctx, permit, q, r)
	switch {
	case alive:
		permit.Alive()
	case ctx.Err() != nil:
		permit.Abandon()
	case isCut(err):
		if parked := permit.Cut(ctx, copyOf(err)); parked != nil {
			return nil, "", parked
		}
	default:
		permit.Failed(copyOf(err))
	}
	return a, next, err
}

// copyOf is an error that stays as it is: whoever has asked may yet say more of his.
func copyOf(err error) error {
	if e, ok := errors.AsType[*Error](err); ok {
		own := *e
		return &own
	}
	return err
}

// isCut reports whether an answer began well and did not come to its end.
func isCut(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && (e.Reason == outcome.ReasonCutBody || e.Reason == outcome.ReasonTimeout)
}

// observe tells of a request, if anybody wants to know. What we took back before
// it was sent is none, nor is what its caller gave up.
func (c *Client) observe(ctx context.Context, host polite.Host, r *received, err error, took time.Duration) {
	if c.cfg.Observe == nil || ctx.Err() != nil || errors.Is(err, errPaused) || errors.Is(err, errAddressFull) {
		return
	}
	status := 0
	if err == nil {
		status = r.status
	}
	c.cfg.Observe(host, status, took)
}

// sendFailed turns the failure to get any answer into the call's error, and reports
// whether the host, or the route to it, is to blame.
func (c *Client) sendFailed(ctx context.Context, permit *polite.Permit, q Request, err error) (blame bool, fail error) {
	if ctx.Err() != nil {
		return false, fmt.Errorf("%s at %s: %w", q.Op, q.Host, ctx.Err())
	}
	if c.guard.life.Err() != nil {
		return false, fmt.Errorf("%s at %s: %w", q.Op, q.Host, context.Canceled)
	}
	if errors.Is(err, errPaused) {
		return false, permit.Parked()
	}
	if errors.Is(err, errAddressFull) {
		wait := addressFullWait + rand.N(addressFullWait)
		return false, &polite.Parked{Host: q.Host, Until: c.cfg.Now().Add(wait), Why: polite.WhyPaced}
	}
	reason := sendReason(err)
	if text := err.Error(); reason == outcome.ReasonTLS || len(text) > maxFailure {
		// It would hold the certificates, or what came in place of an answer, of any
		// size, for as long as the breaker remembers the failure.
		err = fmt.Errorf("%.*s", maxFailure, text)
	}
	return reason != outcome.ReasonRefusedAddress, &Error{Op: q.Op, Host: q.Host, Reason: reason, Err: err}
}

// classify decides what an answer means. It reports whether the host itself gave it:
// a proxy that answers for a dead host is not the host.
func (c *Client) classify(ctx context.Context, permit *polite.Permit, q Request, r *received) (a *Answer, next string, alive bool, err error) {
	fail := func(reason outcome.Reason, cause error) *Error {
		return &Error{Op: q.Op, Host: q.Host, Reason: reason, Status: r.status, Err: cause}
	}
	if ctx.Err() != nil {
		r.Release()
		return nil, "", false, fmt.Errorf("%s at %s: %w", q.Op, q.Host, ctx.Err())
	}
	if r.parked != nil {
		c.cfg.Log.DebugContext(ctx, "host asks for a pause", "host", q.Host, "until", r.parked.Until)
		return nil, "", true, r.parked
	}
	permit.ReadQuota(r.header)
	if r.status != http.StatusOK {
		r.Release()
		if next := r.header.Get("Location"); next != "" && isRedirect(r.status) {
			return nil, next, true, nil
		}
		e, alive := refusal(q, r)
		if alive && q.Optional && e.NothingThere() && c.cfg.RefusesAll != nil {
			alive = !c.cfg.RefusesAll(q.Host)
		}
		return nil, "", alive, e
	}
	switch {
	case errors.Is(r.err, errTooLarge):
		r.Release()
		return nil, "", true, fail(outcome.ReasonTooLarge, fmt.Errorf("more than %d bytes: %w", q.Limit, r.err))
	case isHTML(r.header, r.body) && (r.err == nil) == (q.Read == nil):
		r.Release()
		return nil, "", false, fail(outcome.ReasonBadAnswer, errors.New("html instead of "+q.accept()))
	}
	if parked, ok := errors.AsType[*polite.Parked](r.err); ok {
		r.Release()
		return nil, "", true, parked
	}
	body := withoutBOM(r.body)
	if bad, ok := errors.AsType[*outcome.BadContent](r.err); namesError(q, body) && (r.err == nil || ok) {
		r.Release()
		e, alive := refusal(q, r)
		return nil, "", alive, e
	} else if ok {
		r.Release()
		return nil, "", true, fail(bad.Reason, bad.Err)
	}
	if r.err != nil {
		r.Release()
		return nil, "", false, fail(bodyReason(r.err), r.err)
	}
	return &Answer{Host: q.Host, Body: body, Grant: r.Grant}, "", true, nil
}
