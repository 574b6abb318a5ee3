package polite

import (
	"context"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

func TestOutagesDoNotCountForAHostThatWasWell(t *testing.T) {
	t.Parallel()
	v4 := &net.OpError{Op: "dial", Net: "tcp", Addr: &net.TCPAddr{IP: net.IPv4(1, 1, 1, 1), Port: 443}, Err: syscall.ENETUNREACH}
	v6 := &net.OpError{Op: "dial", Net: "tcp", Addr: &net.TCPAddr{IP: net.ParseIP("2606:4700::1"), Port: 443}, Err: syscall.ENETUNREACH}
	windows := &net.OpError{Op: "dial", Net: "tcp", Addr: v4.Addr, Err: os.NewSyscallError("connectex", syscall.Errno(10051))}
	sick := &net.DNSError{Err: "server misbehaving", Name: "a.example", IsTemporary: true}
	for name, c := range map[string]struct {
		cause error
		proof time.Duration // how old
		asked bool          // are the witnesses
	}{
		"no route, proved just now":       {v4, 0, true},
		"no route, as Windows has it":     {windows, 0, true},
		"no route over IPv6":              {v6, 0, false},
		"refused, proved lately":          {&net.OpError{Op: "dial", Net: "tcp", Addr: v4.Addr, Err: syscall.ECONNREFUSED}, time.Second, false},
		"timeout, proved lately":          {errSlow, time.Second, false},
		"timeout, proved long ago":        {errSlow, time.Minute, true},
		"no name server, proved just now": {sick, 0, false},
		"no name server, proved lately":   {sick, time.Second, true},
		"no such name, proved lately":     {&net.DNSError{Err: "no such host", Name: "a.example", IsNotFound: true}, time.Second, false},
	} {
		now := time.Now()
		var asked atomic.Int32
		for _, reached := range []bool{true, false} {
			asked.Store(0)
			o := &outage{
				services: []Host{"relay", "plc"}, online: now.Add(-c.proof), onChange: func(context.Context, bool) {},
				reach: func(context.Context, Host) bool { asked.Add(1); return reached },
			}
			p := o.failure(t.Context(), attempt{host: "host", began: now, cause: fmt.Errorf("send: %w", c.cause)}, func() time.Time { return now })
			if (asked.Load() > 0) != c.asked || (p != nil) != (c.asked && !reached) {
				t.Errorf("%s, reached %v: %d were asked, parked %v", name, reached, asked.Load(), p)
			}
		}
	}
}
