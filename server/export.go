package server

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"

	"appview/store"
)

// Bounds of an export. It holds a read transaction open, during which the file
// cannot reuse pages: the client must keep up.
const (
	maxExports         = 2                // at once
	exportBuffer       = 64 << 10         // bytes of one write
	exportWriteTimeout = 30 * time.Second // of one write
	exportWindow       = 30 * time.Second // of waiting for the client, after which its rate is judged
	exportMinRate      = 1 << 20          // bytes a second that a client must take
	exportRetryAfter   = 10               // seconds
)

// seqHeader says which change an export contains last.
const seqHeader = "Appview-Seq"

var errSlowClient = errors.New("the client takes the export too slowly")

// exportRecords streams one consistent snapshot as lines of JSON.
func (s *Server) exportRecords(w http.ResponseWriter, r *http.Request) error {
	params, err := query(r, "collection", "did")
	if err != nil {
		return err
	}
	filter, err := parseFilter(params)
	if err != nil {
		return err
	}
	if !r.ProtoAtLeast(1, 1) {
		return failure{
			status: http.StatusHTTPVersionNotSupported,
			text:   "an export needs HTTP/1.1: before that a broken export looks like a whole one",
		}
	}
	select {
	case s.exports <- struct{}{}:
		defer func() { <-s.exports }()
	default:
		f := failure{
			status: http.StatusTooManyRequests,
			text:   fmt.Sprintf("%d exports run already, which is as many as may run at once: try again later", maxExports),
		}
		f.header("Retry-After", strconv.Itoa(exportRetryAfter))
		return f
	}
	p := newPacer(w, s.pace)
	if acceptsGzip(r) {
		z, err := s.zipper()
		if err != nil {
			return err
		}
		defer func() { z.Reset(io.Discard); s.zips.Put(z) }()
		z.Reset(w)
		p.zip = z
	}
	out := bufio.NewWriterSize(p, exportBuffer)
	begin := func(seq uint64) error {
		h := w.Header()
		h.Add("Vary", "Accept-Encoding")
		if p.zip != nil {
			h.Set("Content-Encoding", "gzip")
		}
		h.Set("Content-Type", "application/x-ndjson")
		h.Set(seqHeader, strconv.FormatUint(seq, 10))
		w.WriteHeader(http.StatusOK)
		if r.Method == http.MethodHead {
			return errHead
		}
		return nil
	}
	var line []byte
	err = s.cfg.Store.Export(r.Context(), filter, begin, func(rec store.Record) error {
		var err error
		if line, err = appendRecord(line[:0], &rec, false); err != nil {
			return err
		}
		_, err = out.Write(append(line, '\n'))
		return err
	})
	if errors.Is(err, errHead) {
		return nil
	}
	if err == nil {
		err = out.Flush()
	}
	if err == nil {
		err = p.end()
	}
	if err != nil && begun(w) {
		s.log.WarnContext(r.Context(), "export cut off", "err", err)
		panic(http.ErrAbortHandler) // a clean end would say that this was all
	}
	return err
}

// errHead ends an export of which only the header was asked for.
var errHead = errors.New("only the header was asked for")

// pace is how fast a client must take what is written to it.
type pace struct {
	write  time.Duration // for one write
	window time.Duration // of waiting for the client
	rate   float64       // bytes a second, over a window
}

// pacer writes to a client and fails when it does not keep up. What counts is how
// soon the export ends: the bytes before they are compressed, and only the time in
// which the client is waited for.
type pacer struct {
	w      http.ResponseWriter
	zip    *gzip.Writer // writes to w; nil if nothing is compressed
	rc     *http.ResponseController
	pace   pace
	waited time.Duration
	sent   int
}

func newPacer(w http.ResponseWriter, p pace) *pacer {
	return &pacer{w: w, rc: http.NewResponseController(w), pace: p}
}

// Write writes p, or fails with errSlowClient.
func (p *pacer) Write(b []byte) (int, error) {
	if p.zip != nil {
		return p.timed(func() (int, error) { return p.zip.Write(b) })
	}
	return p.timed(func() (int, error) { return p.w.Write(b) })
}

// end writes what marks a whole export, beside what net/http sends. Where it is
// not called the client sees that something is missing.
func (p *pacer) end() error {
	if p.zip == nil {
		return nil
	}
	_, err := p.timed(func() (int, error) { return 0, p.zip.Close() })
	return err
}

func (p *pacer) timed(write func() (int, error)) (int, error) {
	start := time.Now()
	if err := p.rc.SetWriteDeadline(start.Add(p.pace.write)); err != nil {
		return 0, fmt.Errorf("bound a write: %w", err)
	}
	n, err := write()
	p.waited += time.Since(start)
	p.sent += n
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return n, fmt.Errorf("%w: nothing taken for %s", errSlowClient, p.pace.write)
	case err != nil:
		return n, fmt.Errorf("write to the client: %w", err)
	case p.waited < p.pace.window:
		return n, nil
	}
	rate := float64(p.sent) / p.waited.Seconds()
	p.waited, p.sent = 0, 0
	if rate < p.pace.rate {
		return n, fmt.Errorf("%w: %.0f bytes a second, %.0f are needed", errSlowClient, rate, p.pace.rate)
	}
	return n, nil
}
