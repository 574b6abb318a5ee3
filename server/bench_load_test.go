package server

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/server/answer"
	"appview/store"
	"appview/store/index"
	"appview/store/storetest"
)

// BenchmarkReadsDuringBackfill measures requests as BenchmarkReads does, while a
// job writes new repos of the same collection as fast as the store takes them:
// every commit empties the cache.
func BenchmarkReadsDuringBackfill(b *testing.B) {
	n := benchRecords(b)
	st := benchCopy(b, n)
	s, err := New(Config{Store: st, Jobs: &idleJobs{store: st}})
	if err != nil {
		b.Fatal(err)
	}
	ours := httptest.NewServer(s.Handler())
	b.Cleanup(ours.Close)
	queries := benchQueries(b, ours, n)
	written, stop, ended := 0, make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		job := storetest.Job(b, st, note)
		for first := n; ; first += 500 {
			select {
			case <-stop:
				return
			default:
			}
			var dids []syntax.DID
			for i := range 500 {
				dids = append(dids, storetest.FillDID(first+i))
			}
			storetest.Fill(b, st, job, note, dids, func(i int) []index.Listed {
				return benchListing(b, first+i, benchPerRepo)
			})
			written += 500 * benchPerRepo
		}
	}()
	began := time.Now()
	for _, name := range []string{"getRecord", "listRecords-50", "newest-50", "rkey-50"} {
		b.Run(name, func(b *testing.B) {
			compareBench(b, ours, queries[name])
		})
	}
	close(stop)
	<-ended
	b.Logf("%.0f records a second were written meanwhile", float64(written)/time.Since(began).Seconds())
}

// benchCopy opens a copy of the file of benchStore, to be written to.
func benchCopy(b *testing.B, n int) *store.Store {
	b.Helper()
	from, err := os.Open(benchPath(b, n))
	if err != nil {
		b.Fatal(err)
	}
	path := filepath.Join(b.TempDir(), "appview.db")
	to, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	_, err = io.Copy(to, from)
	if err := errors.Join(err, from.Close(), to.Close()); err != nil {
		b.Fatal(err)
	}
	return openBench(b, path)
}

// BenchmarkExport measures a whole export against a bare handler that writes as
// many bytes in pieces of the same size.
func BenchmarkExport(b *testing.B) {
	st := benchStore(b, benchRecords(b))
	s, err := New(Config{Store: st, Jobs: &idleJobs{store: st}, AdminKey: testKey})
	if err != nil {
		b.Fatal(err)
	}
	ours := httptest.NewServer(s.Handler())
	b.Cleanup(ours.Close)
	var size int64
	bare := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		piece := make([]byte, answer.LineBuffer)
		for left := size; left > 0; left -= int64(len(piece)) {
			_, _ = w.Write(piece)
		}
	}))
	b.Cleanup(bare.Close)
	take := func(url string) (int64, time.Duration) {
		req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, url, nil)
		if err != nil {
			b.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+testKey)
		req.Header.Set("Accept-Encoding", "identity")
		start := time.Now()
		res, err := ours.Client().Do(req)
		if err != nil {
			b.Fatal(err)
		}
		n, err := io.Copy(io.Discard, res.Body)
		if err := errors.Join(err, res.Body.Close()); err != nil || res.StatusCode != http.StatusOK {
			b.Fatalf("%d %v", res.StatusCode, err)
		}
		return n, time.Since(start)
	}
	size, _ = take(ours.URL + "/admin/records/export") // warm
	var mine, theirs time.Duration
	for b.Loop() {
		_, took := take(bare.URL)
		theirs += took
		_, took = take(ours.URL + "/admin/records/export")
		mine += took
	}
	b.ReportMetric(float64(size)*float64(b.N)/mine.Seconds()/1e6, "MB/s")
	b.ReportMetric(theirs.Seconds()/mine.Seconds(), "of-bare")
	b.ReportMetric(float64(size)/float64(benchRecords(b)), "bytes/record")
	b.ReportMetric(0, "ns/op")
}
