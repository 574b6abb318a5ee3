package answer

import (
	"errors"
	"net/http"
	"strconv"
	"time"
)

// Bytes is how many bytes the answers under way take at the moment.
func (a *Answers) Bytes() int64 {
	a.budget.mu.Lock()
	defer a.budget.mu.Unlock()
	return a.budget.held
}

// Cuts is how many answers were cut off since others waited for their room.
func (a *Answers) Cuts() uint64 {
	a.budget.mu.Lock()
	defer a.budget.mu.Unlock()
	return a.budget.cuts
}

// Admitted has a request without a key wait until its answer may be printed.
func (a *Answers) Admitted(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := a.Admit(w, r, Room); err != nil {
			a.Fail(w, r, err)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// Admit waits until the answer to a request without a key may be printed.
func (a *Answers) Admit(w http.ResponseWriter, r *http.Request, bytes int64) error {
	own, isOwn := w.(*Writer)
	if !isOwn {
		return nil // there is no client
	}
	own.share.public = true
	err := a.budget.acquire(r.Context(), &own.share, bytes)
	if errors.Is(err, errAnswersFull) {
		f := Failure{Status: http.StatusServiceUnavailable, Text: "too many answers are under way: try again"}
		f.Header("Retry-After", strconv.Itoa(1))
		return f
	}
	return err
}

// Resume waits until more of an answer that goes on may be printed.
func (a *Answers) Resume(w http.ResponseWriter, r *http.Request) error {
	own, isOwn := w.(*Writer)
	if !isOwn || !own.share.public {
		return nil
	}
	return a.budget.acquire(r.Context(), &own.share, 0)
}

// OpenStreams is how many streams of events run.
func (a *Answers) OpenStreams() int { return len(a.Bounds.Streams) }

// Bound sets other bounds of the bytes of answers under way, as tests want them.
func (a *Answers) Bound(limit int64, grace, patience time.Duration) {
	a.budget.mu.Lock()
	defer a.budget.mu.Unlock()
	a.budget.limit, a.budget.grace, a.budget.patience = limit, grace, patience
	a.budget.advance()
}
