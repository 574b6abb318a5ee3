package cmd

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"

	"appview/cmd/service"
	"appview/internal/record"
	"appview/internal/sandbox"
	"appview/store"
	"appview/store/index"
	"appview/store/storetest"
)

const (
	slowClients    = 150
	slowFor        = 20 * time.Second
	slowRecords    = 120
	slowRecordSize = 84 << 10  // a hundred of them make a page of 8 MiB
	slowEscaped    = 900 << 10 // each byte of which takes six in JSON
	dripBytes      = 80 << 10  // that a client takes of its answer in dripEvery
	dripEvery      = time.Second
)

// BenchmarkSlowClients has many clients ask for long answers and read nothing, or a little
// all the time, and measures the server's memory, and how long it keeps a probe, an
// administrator and an honest client waiting meanwhile.
func BenchmarkSlowClients(b *testing.B) {
	const escaped = syntax.NSID("com.example.escaped")
	list := "/api/records?limit=100&collection=" + string(sandbox.NoteCollection)
	for _, attack := range []struct {
		name, path, header string
		drips              bool
	}{
		{"pages", list, "", false},
		{"pages-by-drips", list, "", true},
		{"compressed-pages", list, "Accept-Encoding: gzip\r\n", false},
		{"compressed-pages-by-drips", list, "Accept-Encoding: gzip\r\n", true},
		{"pages-by-key", list + "&order=rkey", "", false},
		{"pages-of-a-repo", "/xrpc/com.atproto.repo.listRecords?limit=100&repo=" + string(storetest.FillDID(0)) + "&collection=" + string(sandbox.NoteCollection), "", false},
		{"records", "/xrpc/com.atproto.repo.getRecord?repo=" + string(storetest.FillDID(1)) + "&collection=" + string(escaped) + "&rkey=escaped", "", false},
		{"records-by-drips", "/xrpc/com.atproto.repo.getRecord?repo=" + string(storetest.FillDID(1)) + "&collection=" + string(escaped) + "&rkey=escaped", "", true},
		{"description", "/openapi.json", "", false},
	} {
		b.Run(attack.name, func(b *testing.B) {
			dir := b.TempDir()
			fillForSlowClients(b, filepath.Join(dir, service.DatabaseFile), escaped)
			var worst slowness
			for b.Loop() {
				worst = worst.or(attackSlowly(b, dir, "GET "+attack.path+" HTTP/1.1\r\nHost: localhost\r\n"+attack.header+"\r\n", attack.drips))
			}
			b.ReportMetric(float64(worst.anonymous)/(1<<10), "MiB")
			b.ReportMetric(worst.probe.Seconds(), "s-probe")
			b.ReportMetric(worst.admin.Seconds(), "s-admin")
			b.ReportMetric(worst.public.Seconds(), "s-public")
			b.ReportMetric(worst.cpu.Seconds(), "cpus")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// nobody is an address where nobody answers.
const nobody = "http://127.0.0.1:1"

// slowness is what clients have done to a server.
type slowness struct {
	anonymous            int64 // KiB
	probe, admin, public time.Duration
	cpu                  time.Duration // of the server, in a second
}

func (s slowness) or(o slowness) slowness {
	return slowness{max(s.anonymous, o.anonymous), max(s.probe, o.probe), max(s.admin, o.admin), max(s.public, o.public), max(s.cpu, o.cpu)}
}

// fillForSlowClients makes a file of long records, and of one that is far longer in JSON.
func fillForSlowClients(b *testing.B, path string, escaped syntax.NSID) {
	b.Helper()
	s, err := store.Open(store.Config{Path: path})
	if err != nil {
		b.Fatal(err)
	}
	storetest.Fill(b, s, storetest.Job(b, s, sandbox.NoteCollection), sandbox.NoteCollection, []syntax.DID{storetest.FillDID(0)},
		func(int) (list []index.Listed) {
			clock := syntax.NewTIDClock(0)
			for range slowRecords {
				text := make([]byte, slowRecordSize)
				for i := range text {
					text[i] = 'a' + byte(rand.IntN(26))
				}
				list = append(list, index.Listed{RKey: syntax.RecordKey(clock.Next()), Body: textRecord(b, string(text))})
			}
			return list
		})
	storetest.Fill(b, s, storetest.Job(b, s, escaped), escaped, []syntax.DID{storetest.FillDID(1)}, func(int) []index.Listed {
		return []index.Listed{{RKey: "escaped", Body: textRecord(b, strings.Repeat("\x01", slowEscaped))}}
	})
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
}

func textRecord(tb testing.TB, text string) record.Body {
	tb.Helper()
	block, err := atdata.MarshalCBOR(map[string]any{"x": text})
	if err != nil {
		tb.Fatal(err)
	}
	hash, err := multihash.Sum(block, multihash.SHA2_256, -1)
	if err != nil {
		tb.Fatal(err)
	}
	return record.Body{CID: cid.NewCidV1(cid.DagCBOR, hash), Verified: true, Data: block}
}

// attackSlowly has clients send a request and read nothing, or little, for a while.
func attackSlowly(b *testing.B, dir, request string, drips bool) (worst slowness) {
	b.Helper()
	_ = os.Remove(filepath.Join(dir, service.URLFile))
	c := startChild(b, nil, "serve", "--data-dir", dir, "--listen", "127.0.0.1:0", "--relay", nobody, "--plc", nobody, "--allow-private-hosts")
	c.log.wait(b, "msg=serving")
	url := strings.TrimSpace(read(b, filepath.Join(dir, service.URLFile)))
	key := strings.TrimSpace(read(b, filepath.Join(dir, service.KeyFile)))
	ctx, cancel := context.WithTimeout(b.Context(), slowFor)
	defer cancel()
	var clients sync.WaitGroup
	var cut atomic.Int64
	for range slowClients {
		clients.Go(func() {
			for ctx.Err() == nil {
				readLittle(ctx, strings.TrimPrefix(url, "http://"), request, drips)
				cut.Add(1)
			}
		})
	}
	for tick := time.Tick(100 * time.Millisecond); ctx.Err() == nil; <-tick {
		worst = worst.or(slowness{
			anonymous: anonymousKiB(b, c.cmd.Process.Pid),
			probe:     timeOf(ctx, url+"/health", ""),
			admin:     timeOf(ctx, url+"/admin/backfill/status", key),
			public:    timeOf(ctx, url+"/xrpc/com.atproto.repo.listRecords?limit=1&repo="+string(storetest.FillDID(0))+"&collection="+string(sandbox.NoteCollection), ""),
		})
	}
	clients.Wait()
	b.ReportMetric(float64(cut.Load()-slowClients)/slowFor.Seconds(), "cut/s")
	if err := c.cmd.Process.Kill(); err != nil {
		b.Fatal(err)
	}
	c.wait()
	worst.cpu = (c.cmd.ProcessState.UserTime() + c.cmd.ProcessState.SystemTime()) / time.Duration(slowFor.Seconds())
	return worst
}

// readLittle sends a request and reads nothing, or with drips a little all the time, until
// it is cut, has the answer, or ctx ends.
func readLittle(ctx context.Context, address, request string, drips bool) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		<-ctx.Done()
		return
	}
	defer func() { _ = conn.Close() }()
	tcp, isTCP := conn.(*net.TCPConn)
	if !isTCP || tcp.SetReadBuffer(4<<10) != nil {
		return
	}
	if _, err := fmt.Fprint(conn, request); err != nil {
		return
	}
	if end, ok := ctx.Deadline(); ok && tcp.SetReadDeadline(end.Add(time.Second)) != nil { // ctx ends first
		return
	}
	const ticks = 20 // in dripEvery
	for tick := time.Tick(dripEvery / ticks); ctx.Err() == nil; <-tick {
		if drips {
			if _, err := io.CopyN(io.Discard, tcp, dripBytes/ticks); err != nil {
				return
			}
		}
		if isCut(tcp) {
			return
		}
	}
}

// timeOf is how long an answer takes.
func timeOf(ctx context.Context, url, key string) time.Duration {
	start := time.Now()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err == nil {
		_ = res.Body.Close()
	}
	return time.Since(start)
}
