package transport

import (
	"context"
	"time"
)

// progressShare is the part of the idle timeout over which the rate of a body is
// measured: five seconds of thirty.
const progressShare = 6

type progressKey struct{}

// WithProgress returns a context whose requests call f each time that a body has come
// at no less than minRate for some seconds. f must not wait for anything.
func WithProgress(ctx context.Context, f func()) context.Context {
	return context.WithValue(ctx, progressKey{}, f)
}

// meter measures the rate of a body, from one moment to the next. What came fast at
// first is no credit for later.
type meter struct {
	report func() // nil: nobody wants to know
	window time.Duration
	since  time.Time // zero: the next read begins a window
	bytes  int64     // of the body at that moment
}

func newMeter(ctx context.Context, idle time.Duration) meter {
	report, _ := ctx.Value(progressKey{}).(func())
	return meter{report: report, window: idle / progressShare}
}

// read is told of every read, with the bytes so far.
func (m *meter) read(now time.Time, total int64) {
	if m.report == nil {
		return
	}
	age := now.Sub(m.since)
	switch {
	case m.since.IsZero():
	case age < m.window:
		return
	case float64(total-m.bytes) >= minRate*age.Seconds():
		m.report()
	}
	m.since, m.bytes = now, total
}
