package server

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
)

// Bounds of an answer in lines.
const (
	lineBuffer     = 64 << 10 // bytes of one write
	lineRetryAfter = 10       // seconds, for clients that find all places taken
)

// errHead ends lines of which only the header was asked for.
var errHead = errors.New("only the header was asked for")

// lines is an answer of lines of JSON that is written while it is made.
type lines struct {
	w     http.ResponseWriter
	r     *http.Request
	pacer *pacer
	out   *bufio.Writer
}

// streamLines answers with lines, compressed if the client takes that, at the pace
// that is asked of clients. places holds a token for each such answer; what is
// their name. An answer that breaks off breaks the connection.
func (s *Server) streamLines(w http.ResponseWriter, r *http.Request, places chan struct{}, what string, write func(*lines) error) error {
	if !canBreakOff(r) {
		return failure{
			status: http.StatusHTTPVersionNotSupported,
			text:   "this answer needs HTTP/1.1: before that a broken answer looks like a whole one (nginx: proxy_http_version 1.1)",
		}
	}
	free, err := take(places, what)
	if err != nil {
		return err
	}
	defer free()
	l := &lines{w: w, r: r, pacer: newPacer(w, s.pace)}
	if acceptsGzip(r) {
		z := s.zipper()
		defer func() { z.Reset(io.Discard); s.zips.Put(z) }()
		z.Reset(w)
		l.pacer.zip = z
	}
	l.out = bufio.NewWriterSize(l.pacer, lineBuffer)
	err = write(l)
	if err == nil {
		err = l.out.Flush()
	}
	if err == nil {
		err = l.pacer.end()
	}
	return s.cut(w, r, err)
}

// cut breaks the connection of an answer that has begun and cannot be ended: a clean
// end would say that this was all.
func (s *Server) cut(w http.ResponseWriter, r *http.Request, err error) error {
	if errors.Is(err, errHead) {
		return nil
	}
	if err != nil && begun(w) {
		s.log.WarnContext(r.Context(), "answer cut off", "path", r.URL.Path, "err", err)
		panic(http.ErrAbortHandler)
	}
	return err
}

// begin writes the header. It fails with errHead when nothing else is asked for.
func (l *lines) begin() error {
	h := l.w.Header()
	h.Add("Vary", "Accept-Encoding")
	if l.pacer.zip != nil {
		h.Set("Content-Encoding", "gzip")
	}
	h.Set("Content-Type", "application/x-ndjson")
	l.w.WriteHeader(http.StatusOK)
	if l.r.Method == http.MethodHead {
		return errHead
	}
	return nil
}

// Write writes a part of the lines.
func (l *lines) Write(p []byte) (int, error) { return l.out.Write(p) }

// take takes one of the places for answers of a kind, which free gives back.
func take(places chan struct{}, what string) (free func(), err error) {
	select {
	case places <- struct{}{}:
		return func() { <-places }, nil
	default:
		f := failure{
			status: http.StatusTooManyRequests,
			text:   fmt.Sprintf("as many %s as may run at once (%d) run already: try again later", what, cap(places)),
		}
		f.header("Retry-After", strconv.Itoa(lineRetryAfter))
		return nil, f
	}
}
