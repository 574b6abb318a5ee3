package server

import (
	"bufio"
	"errors"
	"fmt"
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
	filter, err := parseExportFilter(r)
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
	out := bufio.NewWriterSize(newPacer(w, s.pace), exportBuffer)
	begin := func(seq uint64) error {
		w.Header().Set("Content-Type", "application/x-ndjson")
		w.Header().Set(seqHeader, strconv.FormatUint(seq, 10))
		w.WriteHeader(http.StatusOK)
		if r.Method == http.MethodHead {
			return errHead
		}
		return nil
	}
	var line []byte
	err = s.cfg.Store.Export(r.Context(), filter, begin, func(rec store.Record) error {
		var err error
		if line, err = appendRecord(line[:0], rec, false); err != nil {
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
	if err != nil && begun(w) {
		s.log.WarnContext(r.Context(), "export cut off", "err", err)
		panic(http.ErrAbortHandler) // a clean end would say that this was all
	}
	return err
}

// errHead ends an export of which only the header was asked for.
var errHead = errors.New("only the header was asked for")

func parseExportFilter(r *http.Request) (filter store.Filter, err error) {
	params, err := query(r, "collection", "did")
	if err != nil {
		return filter, err
	}
	if filter.Collection, err = parseCollection(params["collection"]); err != nil {
		return filter, err
	}
	filter.DID, err = parseDID(params["did"])
	return filter, err
}

// pace is how fast a client must take what is written to it.
type pace struct {
	write  time.Duration // for one write
	window time.Duration // of waiting for the client
	rate   float64       // bytes a second, over a window
}

// pacer writes to a client and fails when it does not keep up. Only the time in
// which the client is waited for counts.
type pacer struct {
	w      http.ResponseWriter
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
	start := time.Now()
	if err := p.rc.SetWriteDeadline(start.Add(p.pace.write)); err != nil {
		return 0, fmt.Errorf("bound a write: %w", err)
	}
	n, err := p.w.Write(b)
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
