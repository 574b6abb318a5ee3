package sandbox

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"slices"
	"time"
)

// hangBound is how long a fault may keep a client that does not go by itself.
const hangBound = time.Minute

// Fault is what to do to one request instead of, or on top of, answering it. The
// zero Fault does nothing. Its parts add up: a delayed 502 with a cut body is one
// Fault.
type Fault struct {
	Name     string        // what it is counted as; default: the first that applies of hang, status, cut, drip, rate, endless, rewrite, delay
	Delay    time.Duration // before the answer; ends early when the client goes, and breaks the connection past three minutes
	Hang     bool          // no answer until the client goes, a minute at most; then the connection breaks
	Status   int           // answer this instead, with Header and Body
	Header   http.Header
	Body     []byte
	Cut      bool // break the connection after CutAfter bytes of the body
	CutAfter int
	Rewrite  func(Answer) Answer // changes the answer before it is sent
	Drip     time.Duration       // send a byte at a time, so far apart, for a minute at most; then the connection breaks
	Rate     int                 // send the body at so many bytes a second, to its end
	Endless  int64               // send spaces behind the body until so many bytes are out; then the connection breaks
}

// Answer is an answer as Rewrite sees it.
type Answer struct {
	Status int
	Header http.Header // Content-Type included
	Body   []byte
}

// SetFault makes the hook decide about every request to every part; nil ends it.
// The hook is called concurrently.
func (w *World) SetFault(hook func(Request) Fault) {
	if hook == nil {
		w.watch.hook.Store(nil)
		return
	}
	w.watch.hook.Store(&hook)
}

// Faults is how many faults of a name were carried out; an empty name counts
// all.
func (w *World) Faults(name string) int64 {
	w.watch.mu.Lock()
	defer w.watch.mu.Unlock()
	if name != "" {
		return w.watch.faults[name]
	}
	var n int64
	for _, count := range w.watch.faults {
		n += count
	}
	return n
}

func (w *watch) faultFor(r Request) Fault {
	hook := w.hook.Load()
	if hook == nil {
		return Fault{}
	}
	f := (*hook)(r)
	if f.isSet() {
		w.fired(f)
	}
	return f
}

func (w *watch) fired(f Fault) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.faults[f.name()]++
}

func (f Fault) isSet() bool { return f.name() != "" }

func (f Fault) name() string {
	kind := ""
	switch {
	case f.Hang:
		kind = "hang"
	case f.Status != 0:
		kind = "status"
	case f.Cut:
		kind = "cut"
	case f.Drip > 0:
		kind = "drip"
	case f.Rate > 0:
		kind = "rate"
	case f.Endless > 0:
		kind = "endless"
	case f.Rewrite != nil:
		kind = "rewrite"
	case f.Delay > 0:
		kind = "delay"
	}
	if kind != "" && f.Name != "" {
		return f.Name
	}
	return kind
}

// hold lets the time of a fault pass. It says whether an answer is still wanted.
func (f Fault) hold(ctx context.Context) bool {
	wait := f.Delay
	if f.Hang {
		wait = hangBound
	}
	if wait <= 0 {
		return true
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return !f.Hang
	case <-ctx.Done():
		return false
	}
}

func (f Fault) answer() answer {
	return answer{status: f.Status, header: f.Header, body: f.Body}
}

func (f Fault) rewrite(a answer) answer {
	if f.Rewrite == nil || a.drop {
		return a
	}
	header := a.header.Clone()
	if header == nil {
		header = make(http.Header)
	}
	if a.contentType != "" {
		header.Set("Content-Type", a.contentType)
	}
	out := f.Rewrite(Answer{Status: a.status, Header: header, Body: slices.Clone(a.body)})
	a.status, a.header, a.body, a.contentType = out.Status, out.Header, out.Body, ""
	return a
}

// cuts says whether the answer is longer than the fault lets through.
func (f Fault) cuts(a answer) bool { return f.Cut && f.CutAfter < len(a.body) }

// streams says whether the answer is not sent in one piece.
func (f Fault) streams() bool { return f.Drip > 0 || f.Rate > 0 || f.Endless > 0 }

// streamPiece is what is sent at once of an answer without an end.
const streamPiece = 64 << 10

// stream sends the answer slowly, or without an end. But for one that is sent at some
// rate, it breaks the connection.
func (f Fault) stream(ctx context.Context, w http.ResponseWriter, a answer) {
	if f.Drip == 0 && f.Rate > 0 {
		f.trickle(ctx, w, a)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, hangBound)
	defer cancel()
	a.chunked = true
	a.begin(w)
	out := http.NewResponseController(w)
	if f.Drip > 0 {
		drip(ctx, w, out, a.body, f.Drip)
		panic(http.ErrAbortHandler)
	}
	n, err := w.Write(a.body)
	spaces := bytes.Repeat([]byte(" "), streamPiece)
	for sent := int64(n); err == nil && ctx.Err() == nil && sent < f.Endless; sent += streamPiece {
		_, err = w.Write(spaces)
	}
	panic(http.ErrAbortHandler)
}

// rateBound is how long an answer may take that is sent at some rate.
const rateBound = time.Hour

// ratePieces is in how many pieces a second a body is sent at some rate.
const ratePieces = 10

// trickle sends the answer at the fault's rate. It is late by what a busy machine takes
// from it, and catches up.
func (f Fault) trickle(ctx context.Context, w http.ResponseWriter, a answer) {
	out := http.NewResponseController(w)
	if err := out.SetWriteDeadline(time.Now().Add(rateBound)); err != nil {
		panic(http.ErrAbortHandler)
	}
	a.begin(w)
	tick := time.NewTicker(time.Second / ratePieces)
	defer tick.Stop()
	for began, sent := time.Now(), 0; sent < len(a.body); {
		select {
		case <-tick.C:
		case <-ctx.Done():
			panic(http.ErrAbortHandler)
		}
		due := min(int(time.Since(began).Seconds()*float64(f.Rate)), len(a.body))
		if _, err := w.Write(a.body[sent:due]); err != nil || out.Flush() != nil {
			panic(http.ErrAbortHandler)
		}
		sent = due
	}
}

// drip sends a body byte by byte, and goes on with spaces.
func drip(ctx context.Context, w io.Writer, out *http.ResponseController, body []byte, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for i := 0; ; i++ {
		next := byte(' ')
		if i < len(body) {
			next = body[i]
		}
		if _, err := w.Write([]byte{next}); err != nil || out.Flush() != nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
