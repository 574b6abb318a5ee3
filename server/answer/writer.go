package answer

import (
	"net/http"
	"time"
)

// Writer knows whether an answer has begun, when, and with what.
type Writer struct {
	http.ResponseWriter

	asked  time.Time
	begun  bool
	status int
	took   time.Duration // until it began
	cut    func() error  // why nothing is written any more; nil: never
	share  answerShare
}

// NewWriter is the writer of the answer to r.
func (a *Answers) NewWriter(rw http.ResponseWriter, r *http.Request) *Writer {
	w := &Writer{ResponseWriter: rw, asked: time.Now()}
	w.share.budget = a.budget
	conn := ConnectionOf(r)
	rc := http.NewResponseController(rw)
	w.share.abort = func() {
		dropUnsent(conn)
		_ = rc.SetWriteDeadline(time.Now())
	}
	w.share.extend = func(d time.Duration) { _ = rc.SetWriteDeadline(w.asked.Add(a.Bounds.Answer + d)) }
	return w
}

// WriteHeader begins the answer.
func (w *Writer) WriteHeader(status int) {
	w.begin(status)
	w.ResponseWriter.WriteHeader(status)
}

// Write begins the answer if nothing has.
func (w *Writer) Write(p []byte) (n int, err error) {
	if w.cut != nil {
		if err := w.cut(); err != nil {
			return 0, err
		}
	}
	w.begin(http.StatusOK)
	w.share.budget.printed(&w.share)
	for len(p) > Piece {
		m, err := w.piece(p[:Piece])
		if n += m; err != nil {
			return n, err
		}
		p = p[Piece:]
	}
	m, err := w.piece(p)
	return n + m, err
}

func (w *Writer) piece(p []byte) (int, error) {
	w.share.beginPiece()
	n, err := w.ResponseWriter.Write(p)
	w.share.endPiece(n)
	return n, err
}

func (w *Writer) begin(status int) {
	if !w.begun {
		w.begun, w.status, w.took = true, status, time.Since(w.asked)
	}
}

// Unwrap is for http.ResponseController.
func (w *Writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Begun reports whether an answer has begun.
func Begun(w http.ResponseWriter) bool {
	own, isOwn := w.(*Writer)
	return isOwn && own.begun
}

// End gives back what the answer has taken.
func (w *Writer) End() { w.share.budget.release(&w.share) }

// Outcome is the status of the answer, 0 if the connection broke before there was one,
// and how long it took until it began, or broke.
func (w *Writer) Outcome() (status int, took time.Duration) {
	if !w.begun {
		return w.status, time.Since(w.asked)
	}
	return w.status, w.took
}

// SetCut has writes fail with what cut returns, unless that is nil. nil sets none.
func SetCut(w http.ResponseWriter, cut func() error) {
	if own, isOwn := w.(*Writer); isOwn {
		own.cut = cut
	}
}
