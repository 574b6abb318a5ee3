package transport

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"appview/internal/network/polite"
)

const (
	// freeBody is what every body may take of memory without asking the budget.
	freeBody = 64 << 10
	// firstRead is the buffer of a body that does not say how long it is.
	firstRead = 16 << 10
	// minRate is the least that a body must bring on average, in bytes a second,
	// once it is older than the idle timeout.
	minRate = 4 << 10
	// contendedRate is what a body must bring from the moment on when it has memory
	// that others wait for. Else a host could send most of a large body at once and
	// drip the rest, and nobody's large bodies would come in meanwhile.
	contendedRate = 64 << 10
)

var (
	errTooLarge = errors.New("body past its limit")
	errTooSlow  = errors.New("too slow")
)

// watchdog cancels a request that stands still. The idea of a total timeout is
// left out on purpose: a large body over a slow line is no fault.
type watchdog struct {
	timer  *time.Timer
	now    func() time.Time
	idle   time.Duration
	since  time.Time     // of the body
	waited time.Duration // for our own budget
	base   int64         // bytes before since
	rate   float64       // bytes a second, at least
	grant  *polite.Grant // of the body
	meter  meter
}

func startWatchdog(d time.Duration, cancel context.CancelCauseFunc, now func() time.Time, idle time.Duration, m meter) *watchdog {
	return &watchdog{timer: time.AfterFunc(d, func() { cancel(errTooSlow) }), now: now, idle: idle, rate: minRate, meter: m}
}

// watchBody begins with a body that grows by a grant.
func (w *watchdog) watchBody(g *polite.Grant) {
	w.grant = g
	w.since = w.now()
	w.timer.Reset(w.idle)
}

// progress is told of every read, with the bytes so far.
func (w *watchdog) progress(total int64) error {
	w.timer.Reset(w.idle)
	if w.grant.Contended() {
		w.raiseRate(total)
	}
	now := w.now()
	w.meter.read(now, total)
	age := now.Sub(w.since) - w.waited
	if age <= w.idle {
		return nil
	}
	if float64(total-w.base) < w.rate*age.Seconds() {
		return errTooSlow
	}
	if w.rate == contendedRate {
		// What came fast at first is no credit for later.
		w.since, w.waited, w.base = w.now(), 0, total
	}
	return nil
}

// raiseRate wants contendedRate from now on.
func (w *watchdog) raiseRate(total int64) {
	if w.rate == contendedRate {
		return
	}
	w.since, w.waited, w.base, w.rate = w.now(), 0, total, contendedRate
}

// exclude runs f and leaves its time out of the body's.
func (w *watchdog) exclude(f func() error) error {
	w.timer.Stop()
	start := w.now()
	err := f()
	w.waited += w.now().Sub(start)
	w.meter.since = time.Time{}
	w.timer.Reset(w.idle)
	return err
}

// readBody reads a body of at most limit bytes, decompressed. What is past
// freeBody is taken from the budget by g, which the caller releases.
func readBody(ctx context.Context, resp *http.Response, limit int64, g *polite.Grant, w *watchdog) ([]byte, error) {
	if resp.ContentLength > limit {
		return nil, errTooLarge
	}
	size := int64(firstRead)
	if resp.ContentLength >= 0 {
		// One byte more shows the end without growing.
		size = min(resp.ContentLength, freeBody-1) + 1
	}
	buf := make([]byte, 0, size)
	for {
		if len(buf) == cap(buf) {
			var err error
			if buf, err = grow(ctx, buf, limit, g, w); err != nil {
				return nil, err
			}
		}
		n, err := resp.Body.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if int64(len(buf)) > limit {
			return nil, errTooLarge
		}
		if errors.Is(err, io.EOF) {
			return buf, nil
		}
		if err != nil {
			return buf, err
		}
		if err := w.progress(int64(len(buf))); err != nil {
			return nil, err
		}
	}
}

// grow doubles a full buffer, up to one byte past the limit.
func grow(ctx context.Context, buf []byte, limit int64, g *polite.Grant, w *watchdog) ([]byte, error) {
	size := min(2*int64(cap(buf)), limit+1)
	if more := size - max(int64(cap(buf)), freeBody); more > 0 {
		if err := w.exclude(func() error { return g.Grow(ctx, more) }); err != nil {
			return nil, err
		}
		if g.Contended() {
			w.raiseRate(int64(len(buf)))
		}
	}
	bigger := make([]byte, len(buf), size)
	copy(bigger, buf)
	return bigger, nil
}

const (
	streamBuffer = 32 << 10
	// sniffed is how much of a body is looked at to tell a web page, or an error in words,
	// from what was asked for.
	sniffed = 1 << 10
)

// Memory bounds what the reader of a body may take while it reads.
type Memory struct {
	Grow  func(n int64) error                     // waits until n more bytes may be held
	Spill func(n int64, write func() error) error // waits until n more bytes may be held in a file, and calls write
}

// source is a body as it comes: bounded, watched, and with a memory of what ended it.
type source struct {
	body  io.Reader
	limit int64
	total int64
	w     *watchdog
	err   error // of the body, never of what is in it
}

// Read reads on.
func (s *source) Read(p []byte) (int, error) {
	n, err := s.body.Read(p)
	s.total += int64(n)
	if s.total > s.limit {
		err = errTooLarge
	}
	if err == nil {
		err = s.w.progress(s.total)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

// readStream has read take a body as it comes, and returns its beginning.
func readStream(ctx context.Context, body io.Reader, limit int64, g *polite.Grant, w *watchdog, read func(io.Reader, Memory) error) (beginning []byte, err error) {
	src := &source{body: body, limit: limit, w: w}
	exclude := func(f func() error) error {
		err := w.exclude(f)
		if g.Contended() {
			w.raiseRate(src.total)
		}
		return err
	}
	in := bufio.NewReaderSize(src, streamBuffer)
	beginning, _ = in.Peek(sniffed) // a body may be shorter
	beginning = bytes.Clone(beginning)
	err = read(in, Memory{
		Grow: func(n int64) error { return exclude(func() error { return g.Grow(ctx, n) }) },
		Spill: func(n int64, write func() error) error {
			return exclude(func() error {
				if err := g.Spool(ctx, n); err != nil {
					return err
				}
				return write()
			})
		},
	})
	if err != nil && src.err != nil {
		return beginning, src.err
	}
	return beginning, err
}
