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

// How many refused keys are logged: whoever tries keys must not fill a disk.
const (
	refusalEvery = 6 * time.Second
	refusalBurst = 10
)

// refusals logs requests whose key opens nothing, up to a bound.
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
	if !f.limit.Allow() {
		f.skipped.Add(1)
		return
	}
	attrs := []slog.Attr{
		slog.String("method", r.Method), slog.String("path", fmt.Sprintf("%.200s", r.URL.Path)), slog.String("remote", r.RemoteAddr), slog.String("err", e.why),
	}
	if e.key.Prefix != "" {
		attrs = append(attrs, slog.String("key", e.key.ID.String()), slog.String("name", e.key.Name))
	}
	if n := f.skipped.Swap(0); n > 0 {
		attrs = append(attrs, slog.Int64("not_logged", n))
	}
	f.log.LogAttrs(r.Context(), slog.LevelWarn, "key refused", attrs...)
}
