package cmd

import (
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"

	"appview/cmd/service"
	"appview/internal/record"
	"appview/internal/sandbox"
	"appview/internal/sandbox/sandboxtest"
	"appview/store"
	"appview/store/index"
	"appview/store/storetest"
)

const (
	// defaultStartRecords is the size of the file; BENCH_RECORDS has another. Five
	// million make four gigabytes.
	defaultStartRecords = 1_000_000
	startPerRepo        = 10
	startBody           = 640 // bytes
)

// BenchmarkStartAfterKill kills a server with SIGKILL while its job is writing to
// a large file, has the system forget the file's pages, and measures how long the
// next process takes until it is ready.
func BenchmarkStartAfterKill(b *testing.B) {
	records := defaultStartRecords
	if text := os.Getenv("BENCH_RECORDS"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			b.Fatalf("BENCH_RECORDS: %v", err)
		}
		records = n
	}
	dir := b.TempDir()
	path := filepath.Join(dir, service.DatabaseFile)
	fillForStart(b, path, records)
	world := sandboxtest.Start(b, sandbox.Config{
		Seed: 98, Repos: 20_000, Hosts: 16, LogSize: 1,
		Collections: []sandbox.Collection{{NSID: sandbox.NoteCollection, Share: 1, MinRecords: 10, MaxRecords: 10, RecordBytes: 500}},
	})
	args := []string{
		"serve", "--data-dir", dir, "--listen", "127.0.0.1:0", "--relay", world.RelayURL(), "--plc", world.PLCURL(),
		"--allow-private-hosts", "--host-rps", "100000", "--plc-rps", "100000", "--collection", sandbox.NoteCollection.String(),
	}
	var slowest, sum time.Duration
	for b.Loop() {
		c := startChild(b, nil, args...)
		c.log.wait(b, `msg="job started"`)
		grown := world.Count(sandbox.PartPDS, "") + 2000 // requests: its commits are under way
		for tick := time.Tick(time.Millisecond); world.Count(sandbox.PartPDS, "") < grown && !strings.Contains(c.log.String(), "job ended"); {
			<-tick
		}
		if err := c.cmd.Process.Kill(); err != nil {
			b.Fatal(err)
		}
		c.wait()
		forget(b, path)
		start := time.Now()
		c = startChild(b, nil, args...)
		awaitReady(b, dir, c)
		took := time.Since(start)
		slowest, sum = max(slowest, took), sum+took
		if err := c.cmd.Process.Kill(); err != nil {
			b.Fatal(err)
		}
		c.wait()
	}
	info, err := os.Stat(path)
	if err != nil {
		b.Fatal(err)
	}
	want(b, exitOK, "is consistent", nil, "check", "--data-dir", dir)
	b.ReportMetric(float64(info.Size())/1e9, "GB")
	b.ReportMetric(sum.Seconds()/float64(b.N), "s-to-ready")
	b.ReportMetric(slowest.Seconds(), "s-slowest")
	b.ReportMetric(0, "ns/op")
}

// fillForStart makes a file of many records.
func fillForStart(b *testing.B, path string, records int) {
	b.Helper()
	s, err := store.Open(store.Config{Path: path})
	if err != nil {
		b.Fatal(err)
	}
	var dids []syntax.DID
	for n := range records / startPerRepo {
		dids = append(dids, storetest.FillDID(n))
	}
	clock := syntax.NewTIDClock(0)
	storetest.Fill(b, s, storetest.Job(b, s, sandbox.StatusCollection), sandbox.StatusCollection, dids, func(i int) (list []index.Listed) {
		for k := range startPerRepo {
			// {"x": bytes}: a record whose CID is its hash.
			data := append([]byte{0xa1, 0x61, 'x', 0x59, startBody >> 8, startBody & 0xff}, make([]byte, startBody)...)
			copy(data[6:], strconv.Itoa(i*startPerRepo+k))
			hash, err := multihash.Sum(data, multihash.SHA2_256, -1)
			if err != nil {
				b.Fatal(err)
			}
			list = append(list, index.Listed{
				RKey: syntax.RecordKey(clock.Next()), Body: record.Body{CID: cid.NewCidV1(cid.DagCBOR, hash), Verified: true, Data: data},
			})
		}
		return list
	})
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
}

// awaitReady waits until a server answers that it can work.
func awaitReady(b *testing.B, dir string, c *child) {
	b.Helper()
	client := &http.Client{Timeout: patience}
	old := strings.TrimSpace(read(b, filepath.Join(dir, service.URLFile))) // of the process before
	for tick, late := time.Tick(time.Millisecond), time.After(time.Minute); ; {
		select {
		case <-tick:
		case <-late:
			b.Fatalf("the server is not ready:\n%s", c.log)
		}
		url := strings.TrimSpace(read(b, filepath.Join(dir, service.URLFile)))
		if url == old && !strings.Contains(c.log.String(), "msg=serving") {
			continue
		}
		req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, url+"/ready", nil)
		if err != nil {
			b.Fatal(err)
		}
		res, err := client.Do(req)
		if err != nil {
			continue
		}
		_ = res.Body.Close()
		if res.StatusCode == http.StatusOK {
			return
		}
	}
}
