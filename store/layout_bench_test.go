package store_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/store"
	"appview/store/index"
	"appview/store/jobs"
	"appview/store/storetest"
)

// layoutRecords is how many records BenchmarkLayout stores, if BENCH_RECORDS does not say.
const layoutRecords = 100_000

// BenchmarkLayout shows where the bytes of small records are in the file, by the record,
// in each way in which they come: rows, log entries and entries of the key index as they
// are (rows), what bbolt adds to each (elements), room in pages (empty), pages above them
// (branch), pages to be used again (free), the end of the file that is not used yet (tail),
// and everything else (rest).
func BenchmarkLayout(b *testing.B) {
	n := layoutRecords
	if text := os.Getenv("BENCH_RECORDS"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil || n < 5_000 {
			b.Fatalf("BENCH_RECORDS is %q, want a number of at least 5000", text)
		}
	}
	for _, size := range []int{1, 400} {
		for name, fill := range map[string]func(*layoutBench){
			"a listing in steps of 500, downwards":  func(l *layoutBench) { l.list(n, 500, true) },
			"a listing in steps of 500, upwards":    func(l *layoutBench) { l.list(n, 500, false) },
			"a listing in steps of 5000, downwards": func(l *layoutBench) { l.list(n, 5000, true) },
			"repos of 20":                           func(l *layoutBench) { l.repos(n) },
		} {
			b.Run(fmt.Sprintf("%s, texts of %d bytes", name, size), func(b *testing.B) {
				for b.Loop() {
					s := openBench(b, filepath.Join(b.TempDir(), "appview.db"))
					l := &layoutBench{b: b, s: s, job: storetest.Job(b, s, note), text: size}
					fill(l)
					l.index()
					l.report(n)
					if err := s.Close(); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

// layoutBench is a store that is filled.
type layoutBench struct {
	b    *testing.B
	s    *store.Store
	job  jobs.Job
	text int // bytes of a record's text
}

// record is the nth.
func (l *layoutBench) record(n int) index.Listed {
	key := syntax.NewTIDFromInteger(1<<52 + uint64(n)<<10)
	return index.Listed{RKey: syntax.RecordKey(key), Body: textBody(l.b, fmt.Sprintf("%0*d", l.text, n))}
}

// list has one account's records be listed in steps.
func (l *layoutBench) list(n, step int, down bool) {
	l.b.Helper()
	b := &bench{t: l.b, s: l.s, job: l.job}
	b.owe(alice)
	at := jobs.Position{First: rev(1), Read: map[syntax.NSID]jobs.ReadUpTo{note: {Cursor: "more"}}}
	for from := 0; from < n; from += step {
		seg := index.Segment{Collection: note}
		for k := from; k < min(from+step, n); k++ {
			i := k
			if down {
				i = n - k
			}
			seg.Records = append(seg.Records, l.record(i))
		}
		if _, err := l.s.Work.Save(l.b.Context(), l.job.Seq, alice, index.Reading{Host: host, Rev: rev(1), Segments: []index.Segment{seg}}, at); err != nil {
			l.b.Fatal(err)
		}
	}
	b.mustSettle(settlement(alice, rev(1), segment(note)))
}

// repos has small repos be read, each on one page.
func (l *layoutBench) repos(n int) {
	l.b.Helper()
	const each = 20
	var dids []syntax.DID
	for i := range n / each {
		dids = append(dids, storetest.FillDID(i))
	}
	storetest.Fill(l.b, l.s, l.job, note, dids, func(i int) (list []index.Listed) {
		for k := range each {
			list = append(list, l.record(i*each+each-k))
		}
		return list
	})
}

// index brings the key index up to date.
func (l *layoutBench) index() {
	l.b.Helper()
	for done := false; !done; {
		var err error
		if done, err = l.s.Index.IndexKeys(l.b.Context(), note); err != nil {
			l.b.Fatal(err)
		}
	}
}

// report says where the bytes are.
func (l *layoutBench) report(n int) {
	l.b.Helper()
	buckets, written, err := l.s.Layout(l.b.Context(), note)
	if err != nil {
		l.b.Fatal(err)
	}
	st := stats(l.b, l.s)
	file, tail := st.FileBytes, st.FileBytes-written
	free := st.FreeBytes - tail
	per := func(bytes int64) float64 { return float64(bytes) / float64(n) }
	var all store.BucketBytes
	for _, name := range slices.Sorted(maps.Keys(buckets)) {
		at := buckets[name]
		l.b.Logf("%-8s rows %6.1f elements %5.1f empty %6.1f branch %4.1f", name, per(at.Rows), per(at.Elements), per(at.Empty), per(at.Branch))
		all.Rows, all.Elements, all.Empty, all.Branch = all.Rows+at.Rows, all.Elements+at.Elements, all.Empty+at.Empty, all.Branch+at.Branch
	}
	for unit, bytes := range map[string]int64{
		"rows": all.Rows, "elements": all.Elements, "empty": all.Empty, "branch": all.Branch, "free": free, "tail": tail, "file": file,
		"rest": file - tail - free - all.Rows - all.Elements - all.Empty - all.Branch,
	} {
		l.b.ReportMetric(per(bytes), unit+"-bytes/record")
	}
}
