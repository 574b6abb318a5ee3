package answer

import (
	"compress/gzip"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"
)

// What a client that takes lines must keep up with.
const (
	lineWriteTimeout = 30 * time.Second // of one write
	lineWindow       = 30 * time.Second // of waiting for the client, after which its rate is judged
	lineMinRate      = 1 << 20          // bytes a second that a client must take
)

var errSlowClient = errors.New("the client takes the answer too slowly")

// Pace is how fast a client must take what is written to it.
type Pace struct {
	Write  time.Duration // for one write
	Window time.Duration // of waiting for the client
	Rate   float64       // bytes a second, over a window
}

// Pacer writes to a client and fails when it does not keep up. What counts is how
// soon the export ends: the bytes before they are compressed, and only the time in
// which the client is waited for.
type Pacer struct {
	w      http.ResponseWriter
	zip    *gzip.Writer // writes to w; nil if nothing is compressed
	rc     *http.ResponseController
	pace   Pace
	waited time.Duration
	sent   int
}

// NewPacer writes to w at a pace.
func NewPacer(w http.ResponseWriter, p Pace) *Pacer {
	return &Pacer{w: w, rc: http.NewResponseController(w), pace: p}
}

// Write writes p, or fails with errSlowClient.
func (p *Pacer) Write(b []byte) (int, error) {
	if p.zip != nil {
		return p.timed(func() (int, error) { return p.zip.Write(b) })
	}
	return p.timed(func() (int, error) { return p.w.Write(b) })
}

// end writes what marks a whole export, beside what net/http sends. Where it is
// not called the client sees that something is missing.
func (p *Pacer) end() error {
	if p.zip == nil {
		return nil
	}
	_, err := p.timed(func() (int, error) { return 0, p.zip.Close() })
	return err
}

func (p *Pacer) timed(write func() (int, error)) (int, error) {
	start := time.Now()
	if err := p.rc.SetWriteDeadline(start.Add(p.pace.Write)); err != nil {
		return 0, fmt.Errorf("bound a write: %w", err)
	}
	n, err := write()
	p.waited += time.Since(start)
	p.sent += n
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return n, fmt.Errorf("%w: nothing taken for %s", errSlowClient, p.pace.Write)
	case err != nil:
		return n, fmt.Errorf("write to the client: %w", err)
	case p.waited < p.pace.Window:
		return n, nil
	}
	rate := float64(p.sent) / p.waited.Seconds()
	p.waited, p.sent = 0, 0
	if rate < p.pace.Rate {
		return n, fmt.Errorf("%w: %.0f bytes a second, %.0f are needed", errSlowClient, rate, p.pace.Rate)
	}
	return n, nil
}
