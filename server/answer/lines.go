package answer

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
	LineBuffer     = 64 << 10 // bytes of one write
	lineRetryAfter = 10       // seconds, for clients that find all places taken
)

// ErrHead ends lines of which only the header was asked for.
var ErrHead = errors.New("only the header was asked for")

// Lines is an answer of lines of JSON that is written while it is made.
type Lines struct {
	w     http.ResponseWriter
	r     *http.Request
	pacer *Pacer
	out   *bufio.Writer
}

// StreamLines answers with lines, compressed if the client takes that, at the pace
// that is asked of clients. places holds a token for each such answer; what is
// their name. An answer that breaks off breaks the connection.
func (a *Answers) StreamLines(w http.ResponseWriter, r *http.Request, places chan struct{}, what string, write func(*Lines) error) error {
	if !CanBreakOff(r) {
		return Failure{
			Status: http.StatusHTTPVersionNotSupported,
			Text:   "this answer needs HTTP/1.1: before that a broken answer looks like a whole one (nginx: proxy_http_version 1.1)",
		}
	}
	free, err := TakePlace(places, what)
	if err != nil {
		return err
	}
	defer free()
	l := &Lines{w: w, r: r, pacer: NewPacer(w, a.Bounds.Pace)}
	if AcceptsGzip(r) {
		z := a.Zipper()
		defer func() { z.Reset(io.Discard); a.Zips.Put(z) }()
		z.Reset(w)
		l.pacer.zip = z
	}
	l.out = bufio.NewWriterSize(l.pacer, LineBuffer)
	err = write(l)
	if err == nil {
		err = l.out.Flush()
	}
	if err == nil {
		err = l.pacer.end()
	}
	return a.Cut(w, r, err)
}

// Cut breaks the connection of an answer that has begun and cannot be ended: a clean
// end would say that this was all.
func (a *Answers) Cut(w http.ResponseWriter, r *http.Request, err error) error {
	if errors.Is(err, ErrHead) {
		return nil
	}
	if err != nil && Begun(w) {
		a.log.WarnContext(r.Context(), "answer cut off", "path", r.URL.Path, "err", err)
		panic(http.ErrAbortHandler)
	}
	return err
}

// Begin writes the header. It fails with errHead when nothing else is asked for.
func (l *Lines) Begin() error {
	h := l.w.Header()
	h.Add("Vary", "Accept-Encoding")
	if l.pacer.zip != nil {
		h.Set("Content-Encoding", "gzip")
	}
	h.Set("Content-Type", "application/x-ndjson")
	l.w.WriteHeader(http.StatusOK)
	if l.r.Method == http.MethodHead {
		return ErrHead
	}
	return nil
}

// Write writes a part of the lines.
func (l *Lines) Write(p []byte) (int, error) { return l.out.Write(p) }

// TakePlace takes one of the places for answers of a kind, which free gives back.
func TakePlace(places chan struct{}, what string) (free func(), err error) {
	select {
	case places <- struct{}{}:
		return func() { <-places }, nil
	default:
		f := Failure{
			Status: http.StatusTooManyRequests,
			Text:   fmt.Sprintf("as many %s as may run at once (%d) run already: try again later", what, cap(places)),
		}
		f.Header("Retry-After", strconv.Itoa(lineRetryAfter))
		return nil, f
	}
}

// CanBreakOff reports whether the client sees that an answer breaks off whose length was
// not said before. In HTTP/1.0 that is its end.
func CanBreakOff(r *http.Request) bool { return r.ProtoAtLeast(1, 1) }
