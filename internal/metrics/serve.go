package metrics

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"time"
)

const (
	headerTimeout = 10 * time.Second
	// profileTimeout is the longest that a profile may be taken for.
	profileTimeout = 5 * time.Minute
)

// Serve answers Prometheus and the tools that take profiles on an address of their
// own, until ctx ends. It closes l. Profiles show what is in memory: they are
// answered nowhere else. guard wraps all that is answered, and decides who may read it.
func (m *Metrics) Serve(ctx context.Context, l net.Listener, guard func(http.Handler) http.Handler, log *slog.Logger) error {
	mux := http.NewServeMux()
	for pattern, h := range map[string]http.Handler{
		"GET /metrics":             m.Handler(log),
		"GET /debug/pprof/":        http.HandlerFunc(pprof.Index),
		"GET /debug/pprof/cmdline": http.HandlerFunc(pprof.Cmdline),
		"GET /debug/pprof/profile": http.HandlerFunc(pprof.Profile),
		"GET /debug/pprof/symbol":  http.HandlerFunc(pprof.Symbol),
		"GET /debug/pprof/trace":   http.HandlerFunc(pprof.Trace),
	} {
		mux.Handle(pattern, guard(h))
	}
	hs := &http.Server{
		Handler: mux, ReadHeaderTimeout: headerTimeout, ReadTimeout: headerTimeout, WriteTimeout: profileTimeout, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug), // clients' broken connections
	}
	if bounded, is := l.(interface {
		ConnState(conn net.Conn, state http.ConnState)
		ConnContext(ctx context.Context, conn net.Conn) context.Context
	}); is {
		hs.ConnState, hs.ConnContext = bounded.ConnState, bounded.ConnContext
	}
	served := make(chan error, 1)
	go func() { served <- hs.Serve(l) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve metrics on %s: %w", l.Addr(), err)
	case <-ctx.Done():
		err := hs.Close() // whoever measures can measure again
		if e := <-served; !errors.Is(e, http.ErrServerClosed) {
			err = errors.Join(err, e)
		}
		return err
	}
}
