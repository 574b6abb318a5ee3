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
	// proofLasts is how long an answer proves that our own network is there, to a
	// failure that may have to do with it…
	proofLasts = 2 * time.Second
	// …and to one that tells of names that are not to be had.
	nameProofLasts = 500 * time.Millisecond
	// outageHosts is how many hosts have to be out of reach before it is believed
	// that all are: with fewer there is no telling.
	outageHosts = 3
	// maxFailed bounds how many hosts that failed are remembered.
	maxFailed = 16
	// witnesses is how many hosts that have answered lately are asked whether
	// they still can be reached, before a suspicion is believed.
	witnesses = 4
	// witnessTimeout bounds asking them.
	witnessTimeout = 5 * time.Second
)

// outage tells our own outage from everybody else's. Dead hosts fail just as a
// dead network does, and at a job's end only dead hosts are left. So a failure is
// the host's own only when something proves that our network was there: another
// answer, or else a host that has answered before and can be reached now.
type outage struct {
	every   time.Duration                        // between looks
	reach   func(context.Context, Host) bool     // opens and closes a connection
	changed func(ctx context.Context, gone bool) // told under the lock
	fixed   []Host                               // witnesses from the start

	mu       sync.Mutex
	proof    time.Time // when our network was last there for certain
	failed   []Host    // that failed since then
	lately   []Host    // hosts that answered, newest last
	checking chan struct{}
	down     bool
	looking  bool
	next     time.Time
	ended    time.Time // when it last came back
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
func (o *outage) answered(ctx context.Context, host Host, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.there(ctx, now)
	if n := len(o.lately); n > 0 && o.lately[n-1] == host {
		return
	}
	o.lately = slices.DeleteFunc(o.lately, func(h Host) bool { return h == host })
	if len(o.lately) == witnesses {
		o.lately = slices.Delete(o.lately, 0, 1)
	}
	o.lately = append(o.lately, host)
}

// there notes that our network is there.
func (o *outage) there(ctx context.Context, now time.Time) {
	if o.down {
		o.changed(ctx, false)
		o.ended = now
	}
	o.down, o.looking, o.proof = false, false, now
	o.failed = o.failed[:0]
}

// asleep is the error of an attempt that our own sleep may have spoiled.
func asleep(host Host, now time.Time) *Parked {
	return &Parked{Host: host, Until: now.Add(shortWait), Why: WhyNetwork}
}

// attempt is a request that had no answer, or none to its end.
type attempt struct {
	host   Host
	began  time.Time
	look   bool // for our network
	jumped bool // our clock has, around it
	cause  error
}

// failure is called for every such attempt. It returns a *Parked when that was our
// own network's fault, or nil. When our clock has jumped around it, or our network
// came back in its course, it counts for nothing in any case.
func (o *outage) failure(ctx context.Context, a attempt, now func() time.Time) *Parked {
	if p := o.blame(ctx, a, now); p != nil || !a.jumped {
		return p
	}
	return asleep(a.host, now())
}

func (o *outage) blame(ctx context.Context, a attempt, now func() time.Time) *Parked {
	o.mu.Lock()
	defer o.mu.Unlock()
	for {
		switch {
		case o.down && !a.look:
			return o.parked(a.host)
		case !o.down && a.began.Before(o.ended):
			return asleep(a.host, now())
		case !o.down && !a.jumped && now().Sub(o.proof) < lasts(a.cause):
			return nil
		}
		if !slices.Contains(o.failed, a.host) && len(o.failed) < maxFailed {
			o.failed = append(o.failed, a.host)
		}
		if o.checking == nil {
			return o.check(ctx, a, now)
		}
		// The witnesses are being asked, but maybe since before this attempt failed.
		done := o.checking
		o.mu.Unlock()
		select {
		case <-done:
		case <-ctx.Done():
			o.mu.Lock()
			o.looking = o.looking && !a.look
			return nil
		}
		o.mu.Lock()
	}
}

// check asks the witnesses. The caller holds the lock, which is given up meanwhile.
func (o *outage) check(ctx context.Context, a attempt, now func() time.Time) *Parked {
	done, began := make(chan struct{}), now()
	o.checking = done
	asked := slices.Concat(o.lately, o.fixed)
	o.mu.Unlock()
	reached := o.anyReached(ctx, asked)
	o.mu.Lock()
	o.checking = nil
	close(done)
	o.looking = false
	select {
	case <-ctx.Done():
		return nil // whoever asked has left, and nothing was learned
	default:
	}
	// Or somebody was answered meanwhile; but that can have come in before.
	if reached || o.proof.After(began) && lasts(a.cause) > 0 {
		o.there(ctx, now())
		return nil
	}
	out := slices.Concat(o.failed, asked)
	slices.Sort(out)
	if !o.down && !a.jumped && len(slices.Compact(out)) < outageHosts {
		return nil
	}
	if !o.down {
		o.changed(ctx, true)
	}
	o.down, o.next = true, now().Add(o.every)
	return o.parked(a.host)
}

func (o *outage) parked(host Host) *Parked {
	return &Parked{Host: host, Until: o.next, Why: WhyNetwork}
}

// lasts is how old a proof may be that our network had no part in a failure. What
// our own machine says of the way there is never proved wrong by what was before.
func lasts(cause error) time.Duration {
	var dns *net.DNSError
	switch {
	case noRoute(cause):
		return 0
	case errors.As(cause, &dns) && !dns.IsNotFound:
		return nameProofLasts
	default:
		return proofLasts
	}
}

// noRoute tells whether our own machine said that there is no way there. Over
// IPv6 that is the normal state of many machines, and says nothing.
func noRoute(err error) bool {
	var op *net.OpError
	if !errors.As(err, &op) {
		return false
	}
	addr, ok := op.Addr.(*net.TCPAddr)
	if !ok || addr.IP.To4() == nil {
		return false
	}
	for _, errno := range []syscall.Errno{
		syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.ENETDOWN, wsaNetUnreach, wsaHostUnreach, wsaNetDown,
	} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// What Windows calls these errors, by numbers of its own.
const (
	wsaNetDown     = syscall.Errno(10050)
	wsaNetUnreach  = syscall.Errno(10051)
	wsaHostUnreach = syscall.Errno(10065)
)

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
