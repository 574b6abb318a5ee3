package answer

import (
	"context"
	"net"
	"net/http"
)

// Detached is the context of a write: a client that goes away must not leave it
// in doubt whether the write was made.
func Detached(r *http.Request) context.Context { return context.WithoutCancel(r.Context()) }

// stopping is the key under which the context of a request holds the one that
// ends when the server begins to stop. Requests outlive that one for a while.
type stopping struct{}

// WithStop is ctx for requests to a server that begins to stop when stop ends.
func WithStop(ctx, stop context.Context) context.Context {
	return context.WithValue(ctx, stopping{}, stop)
}

// UntilStop is the context of a write in many steps: the client may go away, but
// a server that stops does not wait for all of them.
func UntilStop(r *http.Request) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(Detached(r))
	stop, isRun := r.Context().Value(stopping{}).(context.Context)
	if !isRun {
		return ctx, cancel
	}
	unhook := context.AfterFunc(stop, cancel)
	return ctx, func() { unhook(); cancel() }
}

// connection is the key under which the context of a request holds its net.Conn.
type connection struct{}

// WithConnection lets handlers find the connection of a request. It is for http.Server.
func WithConnection(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connection{}, c)
}

// ConnectionOf is the net.Conn of a request, nil if it is not known.
func ConnectionOf(r *http.Request) any { return r.Context().Value(connection{}) }

// BoundSendBuffer bounds what the system keeps for the client of r.
func BoundSendBuffer(r *http.Request, bytes int) {
	if c, is := ConnectionOf(r).(interface{ SetWriteBuffer(int) error }); is {
		_ = c.SetWriteBuffer(bytes) // a system that refuses has a bound of its own
	}
}

// dropUnsent has the system forget what the client has not taken when its
// connection ends: it would wait minutes for somebody who takes nothing.
func dropUnsent(conn any) {
	if c, is := conn.(interface{ SetLinger(int) error }); is {
		_ = c.SetLinger(0) // without it the system has a bound of its own
	}
}

// Stopping is closed when the server begins to stop.
func Stopping(r *http.Request) <-chan struct{} {
	if stop, isRun := r.Context().Value(stopping{}).(context.Context); isRun {
		return stop.Done()
	}
	return nil
}
