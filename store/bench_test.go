package store_test

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"

	"appview/internal/record"
	"appview/store"
	"appview/store/index"
	"appview/store/jobs"
	"appview/store/storetest"
)

// Size of the benchmark's file: BENCH_RECORDS records, ten a repo, of benchBody bytes,
// give or take benchSpread: with one size for all, a byte more in each may mean one row
// less on every page. The last fifth of them comes in so many turns.
const (
	defaultBenchRecords = 500_000
	benchPerRepo        = 10
	benchBody           = 440
	benchSpread         = 100
	benchTurns          = 50
)

func benchRecords(b *testing.B) int {
	b.Helper()
	text := os.Getenv("BENCH_RECORDS")
	if text == "" {
		return defaultBenchRecords
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 5*benchTurns*benchPerRepo {
		b.Fatalf("BENCH_RECORDS is %q, want a number of at least %d", text, 5*benchTurns*benchPerRepo)
	}
	return n
}

// benchBodyOf makes a body whose CID is as random as a real one's.
func benchBodyOf(b *testing.B, n int) record.Body {
	b.Helper()
	data := make([]byte, benchBody-benchSpread+n*7919%(2*benchSpread+1))
	data[0] = 0xa1
	binary.BigEndian.PutUint64(data[8:], uint64(n))
	hash, err := multihash.Sum(data, multihash.SHA2_256, -1)
	if err != nil {
		b.Fatal(err)
	}
	return record.Body{CID: cid.NewCidV1(cid.DagCBOR, hash), Verified: true, Data: data}
}

// fill settles repos until the store holds the records from first up to end. Record
// keys fall anywhere between those of other repos, as TIDs do.
func fill(b *testing.B, s *store.Store, job jobs.Job, first, end int) {
	b.Helper()
	var dids []syntax.DID
	for n := first; n < end; n += benchPerRepo {
		dids = append(dids, storetest.FillDID(n))
	}
	storetest.Fill(b, s, job, note, dids, func(i int) (list []index.Listed) {
		for k := range benchPerRepo {
			n := first + i*benchPerRepo + k
			key := syntax.NewTIDFromInteger((uint64(n)*0x9E3779B97F4A7C15)>>1&^1023 | uint64(benchPerRepo-k))
			list = append(list, index.Listed{RKey: syntax.RecordKey(key), Body: benchBodyOf(b, n)})
		}
		return list
	})
}

// BenchmarkGrowth fills a file, with discovery and work rows as in a job, and reports
// how fast it takes its last fifth of the records beside another file that takes its
// first: the two take turns, so that what the machine does meanwhile is done to both.
// Then the bytes a record, how long the file's opening takes, and what the key index
// costs beside the writing.
func BenchmarkGrowth(b *testing.B) {
	total := benchRecords(b)
	for b.Loop() {
		path := filepath.Join(b.TempDir(), "appview.db")
		s := openBench(b, path)
		job := storetest.Job(b, s, note)
		turn := total / 5 / benchTurns / benchPerRepo * benchPerRepo
		fifth := benchTurns * turn
		start := time.Now()
		fill(b, s, job, 0, total-fifth)
		writing := time.Since(start)

		fresh := openBench(b, filepath.Join(b.TempDir(), "fresh.db"))
		freshJob := storetest.Job(b, fresh, note)
		var last, beside time.Duration
		for at := 0; at < fifth; at += turn {
			start = time.Now()
			fill(b, fresh, freshJob, at, at+turn)
			beside += time.Since(start)
			start = time.Now()
			fill(b, s, job, total-fifth+at, total-fifth+at+turn)
			last += time.Since(start)
		}
		b.ReportMetric(float64(fifth)/beside.Seconds(), "first-records/s")
		b.ReportMetric(beside.Seconds()/last.Seconds(), "last/first")
		writing += last
		if err := fresh.Close(); err != nil {
			b.Fatal(err)
		}

		before := stats(b, s)
		b.ReportMetric(float64(before.FileBytes)/float64(total), "bytes/record")
		b.ReportMetric(float64(before.FreeBytes)/float64(total), "free-bytes/record")
		start = time.Now()
		for done := false; !done; {
			var err error
			if done, err = s.Index.IndexKeys(b.Context(), note); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(time.Since(start).Seconds()/writing.Seconds(), "keyindex/writing")
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(info.Size())/float64(total), "indexed-bytes/record")
		start = time.Now()
		s = openBench(b, path)
		b.ReportMetric(float64(time.Since(start).Milliseconds()), "open-ms")
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(0, "ns/op")
}

func openBench(b *testing.B, path string) *store.Store {
	b.Helper()
	s, err := store.Open(store.Config{Path: path})
	if err != nil {
		b.Fatal(err)
	}
	return s
}
