package server

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// How many refusals are logged: whoever tries keys, or names, must not fill a disk.
const (
	refusalEvery = 6 * time.Second
	refusalBurst = 10
)

// refusals logs requests whose key opens nothing, or whose host name may be a stranger's,
// up to a bound.
type refusals struct {
	log     *slog.Logger
	limit   *rate.Limiter
	skipped *atomic.Int64 // since the last that was logged
}

func newRefusals(log *slog.Logger) refusals {
	return refusals{log: log, limit: rate.NewLimiter(rate.Every(refusalEvery), refusalBurst), skipped: new(atomic.Int64)}
}

// note logs a refused key, but nothing of the key itself unless it was one once.
func (f refusals) note(r *http.Request, err error) {
	e, is := errors.AsType[keyError](err)
	if !is {
		return
	}
	attrs, ok := f.admit(r)
	if !ok {
		return
	}
	attrs = append(attrs, slog.String("err", e.why))
	if e.key.Prefix != "" {
		attrs = append(attrs, slog.String("key", e.key.ID.String()), slog.String("name", e.key.Name))
	}
	f.log.LogAttrs(r.Context(), slog.LevelWarn, "key refused", attrs...)
}

// noteName logs a refused host name: it may be the operator's own.
func (f refusals) noteName(r *http.Request) {
	if attrs, ok := f.admit(r); ok {
		attrs = append(attrs, slog.String("host", fmt.Sprintf("%.200s", r.Host)), slog.String("err", "the name may be a stranger's: --allow-host allows it"))
		f.log.LogAttrs(r.Context(), slog.LevelWarn, "metrics refused", attrs...)
	}
}

// admit is what is logged of a refused request, unless too much was lately.
func (f refusals) admit(r *http.Request) (attrs []slog.Attr, ok bool) {
	if !f.limit.Allow() {
		f.skipped.Add(1)
		return nil, false
	}
	attrs = []slog.Attr{
		slog.String("method", r.Method), slog.String("path", fmt.Sprintf("%.200s", r.URL.Path)), slog.String("remote", r.RemoteAddr),
	}
	if n := f.skipped.Swap(0); n > 0 {
		attrs = append(attrs, slog.Int64("not_logged", n))
	}
	return attrs, true
}
