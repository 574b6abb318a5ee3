package store_test

import (
	"encoding/binary"
	"errors"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"appview/store"
	"appview/store/index"
	"appview/store/jobs"
	"appview/store/storetest"
)

func (b *bench) totals() jobs.Totals {
	b.t.Helper()
	t, err := b.s.Jobs.Totals(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	return t
}

func TestTotalsNeverGoBack(t *testing.T) {
	t.Parallel()
	b := newBench(t, storetest.Open(t))
	if got := b.totals(); !reflect.DeepEqual(got, jobs.Totals{}) {
		t.Errorf("at first: %+v", got)
	}
	b.owe(alice)
	assumed := assuming(alice, rev(1), segment(note, listed(t, "d", "1"), listed(t, "c", "1")))
	assumed.Verdict = jobs.Verdict{Class: jobs.ClassDone, Reason: "exact"}
	b.mustSettle(assumed)
	b.distrust(bob, rev(1))
	before := b.totals()
	if before.Reasons["exact"] < 1 || before.Tally.Records < 2 || before.Tally.Created < 2 {
		t.Errorf("settled: %+v", before)
	}
	// Alice's repo is taken back, and turns out to be unavailable: her job does not
	// count it as exact any more.
	b.reopen(host)
	exact := b.row().Reasons["exact"]
	b.mustSettle(jobs.Settlement{
		DID: alice, Reading: index.Reading{Host: host}, Account: "deleted", Purge: true,
		Verdict: jobs.Verdict{Class: jobs.ClassUnavailable, Reason: "deleted"},
	})
	if b.row().Reasons["exact"] != exact-1 {
		t.Fatalf("the job's own counter did not go back: this test tests nothing")
	}
	after := b.totals()
	if after.Reasons["exact"] != before.Reasons["exact"] || after.Reasons["deleted"] != 1 || after.Tally.Records != before.Tally.Records {
		t.Errorf("before %+v, after %+v", before, after)
	}
}

// TestTotalsOutliveTheirJobs changes the file between two processes.
func TestTotalsOutliveTheirJobs(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*bbolt.Tx, jobs.Job) error{
		"that are forgotten": func(tx *bbolt.Tx, j jobs.Job) error {
			key := binary.BigEndian.AppendUint64(nil, j.Seq)
			return errors.Join(
				tx.Bucket([]byte("jobs")).Delete(key), tx.Bucket([]byte("job_ids")).Delete(j.ID[:]),
				tx.Bucket([]byte("unfinished")).Delete(key), tx.Bucket([]byte("work")).DeleteBucket(key),
			)
		},
		"and begin with those that are known": func(tx *bbolt.Tx, _ jobs.Job) error {
			const older = 4 // the schema before there were totals
			return errors.Join(tx.DeleteBucket([]byte("totals")),
				tx.Bucket([]byte("meta")).Put([]byte("schema"), binary.BigEndian.AppendUint64(nil, older)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "appview.db")
			s, err := store.Open(store.Config{Path: path, FlushEvery: time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			b := newBench(t, s)
			b.owe(alice)
			b.mustSettle(settlement(alice, rev(1), segment(note, listed(t, "d", "1"), listed(t, "c", "1"))))
			want := b.totals()
			if want.Tally.Created != 2 {
				t.Errorf("settled: %+v", want)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			db, err := bbolt.Open(path, 0o600, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(db.Update(func(tx *bbolt.Tx) error { return change(tx, b.job) }), db.Close()); err != nil {
				t.Fatal(err)
			}
			b.s = storetest.OpenPath(t, path)
			if got := b.totals(); !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}
