package network

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"
)

const (
	// Our own network is suspected when this many attempts in a row failed, to
	// at least so many hosts…
	outageAttempts = 20
	outageHosts    = 5
	// …or when so many hosts in a row had no route. One is not enough: a router
	// far away can say the same of one host.
	unreachableHosts = 3
	// witnesses is how many hosts that have answered lately are asked whether
	// they still can be reached, before a suspicion is believed.
	witnesses = 4
	// witnessTimeout bounds asking them.
	witnessTimeout = 5 * time.Second
)

// outage tells our own outage from everybody else's. Dead hosts fail just as a
// dead network does, and at a job's end only dead hosts are left: so a run of
// failures is a suspicion, and hosts that have answered before decide.
type outage struct {
	every   time.Duration                        // between looks
	reach   func(context.Context, Host) bool     // opens and closes a connection
	changed func(ctx context.Context, gone bool) // told under the lock
	fixed   []Host                               // witnesses from the start

	mu          sync.Mutex
	failed      []Host // attempts that failed in a row, newest last
	unreachable map[Host]struct{}
	lately      []Host // hosts that answered, newest last
	checking    chan struct{}
	down        bool
	looking     bool
	next        time.Time
}

// admit lets a request pass, and tells whether it is the look for our network.
func (o *outage) admit(host Host, now time.Time) (look bool, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.down {
		return false, nil
	}
	if o.looking || now.Before(o.next) {
		until := o.next
		if o.looking {
			until = now.Add(shortWait)
		}
		return false, &Parked{Host: host, Until: until, Why: WhyNetwork}
	}
	o.looking = true
	return true, nil
}

// abandon ends a look that told nothing.
func (o *outage) abandon(look bool) {
	if !look {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.looking = false
}

// answered is called when any host has answered anything.
func (o *outage) answered(ctx context.Context, host Host) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.over(ctx)
	if n := len(o.lately); n > 0 && o.lately[n-1] == host {
		return
	}
	o.lately = slices.DeleteFunc(o.lately, func(h Host) bool { return h == host })
	if len(o.lately) == witnesses {
		o.lately = slices.Delete(o.lately, 0, 1)
	}
	o.lately = append(o.lately, host)
}

func (o *outage) over(ctx context.Context) {
	if o.down {
		o.changed(ctx, false)
	}
	o.down, o.looking = false, false
	o.failed = o.failed[:0]
	clear(o.unreachable)
}

// asleep is the error of an attempt that our own sleep may have spoiled.
func asleep(host Host, now time.Time) *Parked {
	return &Parked{Host: host, Until: now.Add(shortWait), Why: WhyNetwork}
}

// failure is called when an attempt had no answer. It returns a *Parked when
// that was our own network's fault, or nil. When our clock has jumped around it,
// one failure is enough to look for our network, and none counts.
func (o *outage) failure(ctx context.Context, host Host, look, jumped bool, cause error, now func() time.Time) *Parked {
	if p := o.blame(ctx, host, look, jumped, cause, now); p != nil || !jumped {
		return p
	}
	return asleep(host, now())
}

func (o *outage) blame(ctx context.Context, host Host, look, jumped bool, cause error, now func() time.Time) *Parked {
	o.mu.Lock()
	switch {
	case o.down && !look:
		defer o.mu.Unlock()
		return o.parked(host)
	case !o.down && !o.suspect(host, cause) && !jumped:
		o.mu.Unlock()
		return nil
	case o.checking != nil:
		done := o.checking
		o.mu.Unlock()
		select {
		case <-done:
		case <-ctx.Done():
			return nil
		}
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.down {
			return o.parked(host)
		}
		return nil
	}
	done := make(chan struct{})
	o.checking = done
	asked := slices.Concat(o.lately, o.fixed)
	o.mu.Unlock()

	reached := o.anyReached(ctx, asked)

	o.mu.Lock()
	defer o.mu.Unlock()
	o.checking = nil
	close(done)
	o.looking = false
	if ctx.Err() != nil {
		return nil
	}
	if reached || len(o.failed) == 0 && !o.down { // or somebody was answered meanwhile
		o.over(ctx)
		return nil
	}
	if !o.down {
		o.changed(ctx, true)
	}
	o.down, o.next = true, now().Add(o.every)
	return o.parked(host)
}

func (o *outage) parked(host Host) *Parked {
	return &Parked{Host: host, Until: o.next, Why: WhyNetwork}
}

// suspect notes a failure and tells whether it may be our own.
func (o *outage) suspect(host Host, cause error) bool {
	if len(o.failed) == outageAttempts {
		o.failed = slices.Delete(o.failed, 0, 1)
	}
	o.failed = append(o.failed, host)
	if noRoute(cause) {
		o.unreachable[host] = struct{}{}
	}
	if len(o.unreachable) >= unreachableHosts {
		return true
	}
	if len(o.failed) < outageAttempts {
		return false
	}
	hosts := slices.Clone(o.failed)
	slices.Sort(hosts)
	return len(slices.Compact(hosts)) >= outageHosts
}

// noRoute tells whether our own machine said that there is no way there. Over
// IPv6 that is the normal state of many machines, and says nothing.
func noRoute(err error) bool {
	var op *net.OpError
	if !errors.As(err, &op) || !errors.Is(err, syscall.ENETUNREACH) {
		return false
	}
	addr, ok := op.Addr.(*net.TCPAddr)
	return ok && addr.IP.To4() != nil
}

// anyReached asks all witnesses at once; the first that is reached decides.
func (o *outage) anyReached(ctx context.Context, hosts []Host) bool {
	ctx, cancel := context.WithTimeout(ctx, witnessTimeout)
	defer cancel()
	var asking sync.WaitGroup
	reached := make(chan struct{}, len(hosts))
	for _, host := range hosts {
		asking.Go(func() {
			if o.reach(ctx, host) {
				reached <- struct{}{}
				cancel()
			}
		})
	}
	asking.Wait()
	return len(reached) > 0
}

// state tells whether the network is gone, and when the next look is due.
func (o *outage) state() (time.Time, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.next, o.down
}
