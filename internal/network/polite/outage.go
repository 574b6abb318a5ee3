package polite

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
	// maxCanaries is how many hosts that have answered lately are connected to, to see
	// whether they can be reached, before an outage is believed.
	maxCanaries = 4
	// canaryTimeout bounds connecting to them.
	canaryTimeout = 5 * time.Second
)

// outage tells our own outage from everybody else's. Dead hosts fail just as a
// dead network does, and at a job's end only dead hosts are left. So a failure is
// the host's own only when something proves that our network was there: another
// answer, or else a host that has answered before and can be reached now.
type outage struct {
	every    time.Duration                        // between probes
	reach    func(context.Context, Host) bool     // opens and closes a connection
	onChange func(ctx context.Context, gone bool) // told under the lock
	services []Host                               // canaries from the start

	mu       sync.Mutex
	online   time.Time // when our network was last there for certain
	failed   []Host    // that failed since then
	canaries []Host    // hosts that answered, newest last
	checking chan struct{}
	down     bool
	probing  bool
	next     time.Time
	ended    time.Time // when it last came back
}

// admit fails while our network is gone. It reports whether the request is the probe of it.
func (o *outage) admit(host Host, now time.Time) (probe bool, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.down {
		return false, nil
	}
	if o.probing || now.Before(o.next) {
		until := o.next
		if o.probing {
			until = now.Add(shortWait)
		}
		return false, &Parked{Host: host, Until: until, Why: WhyNetwork}
	}
	o.probing = true
	return true, nil
}

// abandon ends a probe of which nothing was learned.
func (o *outage) abandon(probe bool) {
	if !probe {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.probing = false
}

// answered records that a host has answered, whatever it said.
func (o *outage) answered(ctx context.Context, host Host, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.confirmOnline(ctx, now)
	if n := len(o.canaries); n > 0 && o.canaries[n-1] == host {
		return
	}
	o.canaries = slices.DeleteFunc(o.canaries, func(h Host) bool { return h == host })
	if len(o.canaries) == maxCanaries {
		o.canaries = slices.Delete(o.canaries, 0, 1)
	}
	o.canaries = append(o.canaries, host)
}

// confirmOnline records that our network is there.
func (o *outage) confirmOnline(ctx context.Context, now time.Time) {
	if o.down {
		o.onChange(ctx, false)
		o.ended = now
	}
	o.down, o.probing, o.online = false, false, now
	o.failed = o.failed[:0]
}

// afterSuspend is the error of an attempt that our own suspension may have spoiled.
func afterSuspend(host Host, now time.Time) *Parked {
	return &Parked{Host: host, Until: now.Add(shortWait), Why: WhyNetwork}
}

// attempt is a request that had no answer, or none to its end.
type attempt struct {
	host   Host
	began  time.Time
	probe  bool // of our network
	jumped bool // the clock did, around it
	cause  error
}

// failure attributes an attempt. It returns a *Parked when our own network was at fault, or
// nil when the host was. An attempt around which the clock has jumped, or our network came
// back, is never the host's.
func (o *outage) failure(ctx context.Context, a attempt, now func() time.Time) *Parked {
	if p := o.attribute(ctx, a, now); p != nil || !a.jumped {
		return p
	}
	return afterSuspend(a.host, now())
}

func (o *outage) attribute(ctx context.Context, a attempt, now func() time.Time) *Parked {
	o.mu.Lock()
	defer o.mu.Unlock()
	for {
		switch {
		case o.down && !a.probe:
			return o.parked(a.host)
		case !o.down && a.began.Before(o.ended):
			return afterSuspend(a.host, now())
		case !o.down && !a.jumped && now().Sub(o.online) < proofLifetime(a.cause):
			return nil
		}
		if !slices.Contains(o.failed, a.host) && len(o.failed) < maxFailed {
			o.failed = append(o.failed, a.host)
		}
		if o.checking == nil {
			return o.check(ctx, a, now)
		}
		// The canaries are being connected to, but maybe since before this attempt failed.
		done := o.checking
		o.mu.Unlock()
		select {
		case <-done:
		case <-ctx.Done():
			o.mu.Lock()
			o.probing = o.probing && !a.probe
			return nil
		}
		o.mu.Lock()
	}
}

// check connects to the canaries. The caller holds the lock, which is released meanwhile.
func (o *outage) check(ctx context.Context, a attempt, now func() time.Time) *Parked {
	done, began := make(chan struct{}), now()
	o.checking = done
	asked := slices.Concat(o.canaries, o.services)
	o.mu.Unlock()
	reached := o.anyReached(ctx, asked)
	o.mu.Lock()
	o.checking = nil
	close(done)
	o.probing = false
	select {
	case <-ctx.Done():
		return nil // whoever asked has left, and nothing was learned
	default:
	}
	// Or somebody was answered meanwhile; but that can have come in before.
	if reached || o.online.After(began) && proofLifetime(a.cause) > 0 {
		o.confirmOnline(ctx, now())
		return nil
	}
	out := slices.Concat(o.failed, asked)
	slices.Sort(out)
	if !o.down && !a.jumped && len(slices.Compact(out)) < outageHosts {
		return nil
	}
	if !o.down {
		o.onChange(ctx, true)
	}
	o.down, o.next = true, now().Add(o.every)
	return o.parked(a.host)
}

func (o *outage) parked(host Host) *Parked {
	return &Parked{Host: host, Until: o.next, Why: WhyNetwork}
}

// proofLifetime is how old the proof may be that our network had no part in a failure. What
// our own machine says of the route is never proved wrong by what was before.
func proofLifetime(cause error) time.Duration {
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

// noRoute reports whether our own machine said that there is no route. Over
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

// anyReached connects to all canaries at once; the first that is reached decides.
func (o *outage) anyReached(ctx context.Context, hosts []Host) bool {
	ctx, cancel := context.WithTimeout(ctx, canaryTimeout)
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

// state reports whether the network is gone, and when the next probe is due.
func (o *outage) state() (time.Time, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.next, o.down
}
