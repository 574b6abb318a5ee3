package store_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/google/uuid"

	"appview/internal/api"
	"appview/store"
	"appview/store/index"
	"appview/store/jobs"
	"appview/store/storetest"
)

// assuming is a settlement in which the end of the first segment's collection is
// taken to be behind its last record.
func assuming(did syntax.DID, at syntax.TID, seg index.Segment) jobs.Settlement {
	s := settlement(did, at, seg)
	s.Short.Assumed = []syntax.NSID{seg.Collection}
	return s
}

// settle has the job settle a repo that it owes.
func (b *bench) settle(s jobs.Settlement) error {
	return b.try(func(done func(error)) error { return b.s.Work.Settle(b.t.Context(), b.job.Seq, s, done) })
}

func (b *bench) mustSettle(s jobs.Settlement) {
	b.t.Helper()
	if err := b.settle(s); err != nil {
		b.t.Fatal(err)
	}
}

// distrust has the job find out that short pages of the host are not the end.
func (b *bench) distrust(did syntax.DID, at syntax.TID) {
	b.t.Helper()
	b.owe(did)
	s := settlement(did, at, segment(note, listed(b.t, "z", "1"), listed(b.t, "a", "1")))
	s.Short.More = true
	b.mustSettle(s)
}

// reopen puts everything back into the queues that is to be read anew, and wants
// the hosts to be these.
func (b *bench) reopen(want ...string) {
	b.t.Helper()
	grown := map[string]bool{}
	for after, more := syntax.DID(""), true; more; more = after != "" {
		hosts, next, err := b.s.Work.Reopen(b.t.Context(), b.job.Seq, after)
		if err != nil {
			b.t.Fatal(err)
		}
		for _, h := range hosts {
			grown[h] = true
		}
		after = next
	}
	if got := slices.Sorted(maps.Keys(grown)); !slices.Equal(got, want) {
		b.t.Errorf("reopened repos at %v, want %v", got, want)
	}
}

func (b *bench) finish() jobs.Job {
	b.t.Helper()
	job, err := b.s.Jobs.FinishJob(b.t.Context(), b.job.Seq, none)
	if err != nil {
		b.t.Fatal(err)
	}
	return job
}

func TestShortPageIsTheEndOnlyWhereItMayBe(t *testing.T) {
	t.Parallel()
	b := newBench(t, storetest.Open(t))
	b.owe(alice)
	b.mustSettle(assuming(alice, rev(1), segment(note, listed(t, "d", "1"), listed(t, "c", "1"))))
	if got := b.row(); got.Processed != 1 || got.Tally.Records != 2 {
		t.Errorf("%+v", got)
	}

	// Two jobs over one repo: what the first has written below the page is there
	// only when the second settles.
	b.again()
	b.owe(bob)
	first, second := b.job, newJob(t, b.s, nil)
	b.job = second
	b.owe(bob)
	var errs [2]error
	done := make(chan struct{}, 2)
	for i, s := range []jobs.Settlement{
		settlement(bob, rev(1), segment(note, listed(t, "d", "1"), listed(t, "a", "1"))),
		assuming(bob, rev(2), segment(note, listed(t, "d", "1"), listed(t, "c", "1"))),
	} {
		if err := b.s.Work.Settle(t.Context(), []uint64{first.Seq, second.Seq}[i], s, func(err error) { errs[i] = err; done <- struct{}{} }); err != nil {
			t.Fatal(err)
		}
	}
	<-done
	<-done
	if errs[0] != nil || !errors.Is(errs[1], index.ErrNotTheEnd) {
		t.Errorf("settled with %v, %v; want ErrNotTheEnd for the second", errs[0], errs[1])
	}
	// Nothing that is held may stand behind the page, in whatever order its keys are.
	for keys, want := range map[string]bool{"da": true, "ad": true, "dca": true, "d": false, "a": false, "dc": false, "Ae": false, "": false} {
		seg := segment(note)
		for _, k := range keys {
			seg.Records = append(seg.Records, listed(t, string(k), "1"))
		}
		if may, err := b.s.Work.MayEnd(t.Context(), b.job.Seq, host, bob, seg); err != nil || may != want {
			t.Errorf("behind %q: %t, %v", keys, may, err)
		}
	}
	rejected := index.Segment{Collection: note, Rejected: []syntax.RecordKey{"a", "d"}}
	if may, err := b.s.Work.MayEnd(t.Context(), b.job.Seq, host, bob, rejected); err != nil || !may {
		t.Errorf("behind rejected ones: %t, %v", may, err)
	}
	for c, did := range map[syntax.NSID]syntax.DID{other: bob, note: "did:plc:nobody"} {
		if may, err := b.s.Work.MayEnd(t.Context(), b.job.Seq, host, did, segment(c, listed(t, "z", "1"))); err != nil || !may {
			t.Errorf("%s of %s: %t, %v", c, did, may, err)
		}
	}
	b.mustSettle(settlement(bob, rev(2), segment(note, listed(t, "d", "1"), listed(t, "c", "1"))))

	// A host that is not trusted by one job is not trusted by any.
	b.again()
	carol, dave := syntax.DID("did:plc:carol"), syntax.DID("did:plc:dave")
	b.distrust(carol, rev(1))
	b.again()
	b.owe(dave)
	s := assuming(dave, rev(1), segment(note, listed(t, "c", "1")))
	if err := b.settle(s); !errors.Is(err, index.ErrNotTheEnd) {
		t.Errorf("at a host that is not trusted: %v, want ErrNotTheEnd", err)
	}
	if may, err := b.s.Work.MayEnd(t.Context(), b.job.Seq, host, "did:plc:nobody", segment(note, listed(t, "a", "1"))); err != nil || may {
		t.Errorf("at a host that is not trusted: %t, %v", may, err)
	}
	if known, err := b.s.Work.Distrusted(t.Context(), host); err != nil || !known {
		t.Errorf("distrusted: %t, %v", known, err)
	}
	if known, err := b.s.Work.Distrusted(t.Context(), "https://other.example.com"); err != nil || known {
		t.Errorf("another host is distrusted: %t, %v", known, err)
	}
}

func TestShortPagesThatWereTheEndAreCounted(t *testing.T) {
	t.Parallel()
	b := newBench(t, storetest.Open(t))
	for i, did := range []syntax.DID{alice, bob} {
		b.owe(did)
		s := settlement(did, rev(1), segment(note, listed(t, "c", "1")))
		s.Short.Ends = [][]int{{3, 7}, {5}}[i]
		b.mustSettle(s)
	}
	h, err := b.s.Work.Host(t.Context(), b.job.Seq, host)
	if err != nil || h.Ends != 3 || h.LongestEnd != 7 {
		t.Errorf("%+v, %v", h, err)
	}
	// How the host behaves otherwise is noted beside it.
	if err := b.s.Work.PutHost(t.Context(), b.job.Seq, host, jobs.Behaviour{Probes: 1}); err != nil {
		t.Fatal(err)
	}
	if h, err := b.s.Work.Host(t.Context(), b.job.Seq, host); err != nil || h.Ends != 3 || h.Probes != 1 {
		t.Errorf("%+v, %v", h, err)
	}
}

func TestJobIsNotDoneBeforeItsDoubtedReposAreReadAnew(t *testing.T) {
	t.Parallel()
	b := newBench(t, storetest.Open(t))
	b.owe(alice)
	b.mustSettle(assuming(alice, rev(1), segment(note, listed(t, "d", "1"), listed(t, "c", "1"))))
	if err := b.s.Work.EndDiscovery(t.Context(), b.job.Seq, ""); err != nil {
		t.Fatal(err)
	}
	// It is another job that finds it out.
	mine := b.job
	b.again()
	b.distrust(bob, rev(1))
	b.job = mine
	if got := b.finish(); got.Status != api.StatusRunning {
		t.Fatalf("the job is %s", got.Status)
	}
	if hosts, err := b.s.Work.Doubted(t.Context(), b.job.Seq); err != nil || !slices.Equal(hosts, []string{host}) {
		t.Errorf("doubted: %v, %v", hosts, err)
	}
	before := b.row()
	b.reopen(host)
	b.reopen()
	if got := b.row(); got.Reopened != 1 || got.Processed != 1 || got.Tally != before.Tally || got.Done() {
		t.Errorf("reopened: %+v", got)
	}
	if got := b.finish(); got.Status != api.StatusRunning {
		t.Errorf("the job is %s", got.Status)
	}
	owed, err := b.s.Work.Owed(t.Context(), b.job.Seq, host, "", 10)
	if err != nil || len(owed) != 1 || !owed[0].Again || owed[0].Position != nil {
		t.Fatalf("owed: %+v, %v", owed, err)
	}
	b.must(func(done func(error)) error {
		o := owed[0]
		o.Attempts, o.Again = 1, false
		return b.s.Work.Postpone(t.Context(), b.job.Seq, o, done)
	})
	b.mustSettle(settlement(alice, rev(1), segment(note, listed(t, "d", "1"), listed(t, "c", "1"), listed(t, "a", "1"))))
	got := b.row()
	if got.Reopened != 0 || got.Processed != 1 || got.Tally != (index.Tally{Records: 3, Created: 3}) {
		t.Errorf("read anew: %+v", got)
	}
	if got := b.finish(); got.Status != api.StatusCompleted {
		t.Errorf("the job is %s", got.Status)
	}
	hosts, err := b.s.Jobs.JobHosts(t.Context(), b.job.Seq)
	if err != nil || len(hosts) != 1 || hosts[0].Left() != 0 || hosts[0].Assumed != 0 || hosts[0].Records != 3 {
		t.Errorf("hosts: %+v, %v", hosts, err)
	}
}

func TestNoCounterGoesBackWhenARepoIsReadAnew(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		was, now jobs.Verdict
		want     string
	}{
		"unavailable":    {jobs.Verdict{Class: jobs.ClassDone, Reason: "exact"}, jobs.Verdict{Class: jobs.ClassUnavailable, Reason: "deleted"}, "deleted"},
		"failed":         {jobs.Verdict{Class: jobs.ClassDone, Reason: "exact"}, jobs.Verdict{Class: jobs.ClassFailed, Reason: "timeout"}, "timeout"},
		"failed at once": {jobs.Verdict{Class: jobs.ClassFailed, Reason: "rejected"}, jobs.Verdict{Class: jobs.ClassDone, Reason: "exact"}, "rejected"},
		"failed, gone":   {jobs.Verdict{Class: jobs.ClassFailed, Reason: "rejected"}, jobs.Verdict{Class: jobs.ClassUnavailable, Reason: "deleted"}, "rejected"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, storetest.Open(t))
			b.owe(alice)
			s := assuming(alice, rev(1), segment(note, listed(t, "d", "1"), listed(t, "c", "1")))
			s.Verdict = c.was
			b.mustSettle(s)
			b.distrust(bob, rev(1))
			b.reopen(host)
			before := b.row()
			// It has moved in the meantime.
			const elsewhere = "https://new.example.com"
			b.must(func(done func(error)) error {
				return b.s.Work.Rehost(t.Context(), b.job.Seq, alice, host, elsewhere, done)
			})
			b.mustSettle(jobs.Settlement{
				DID: alice, Reading: index.Reading{Host: elsewhere}, Account: "deleted", Purge: c.now.Class == jobs.ClassUnavailable,
				Verdict: c.now,
			})
			after := b.row()
			storetest.NothingBack(t, before, after)
			if after.Reasons[c.want] != 1 || after.Processed != 2 || after.Reopened != 0 || after.Tally.Records != 4 {
				t.Errorf("%+v", after)
			}
		})
	}
}

func TestRetryReadsDoubtedReposToo(t *testing.T) {
	t.Parallel()
	b := newBench(t, storetest.Open(t))
	carol := syntax.DID("did:plc:carol")
	b.owe(alice)
	b.mustSettle(assuming(alice, rev(1), segment(note, listed(t, "c", "1"))))
	b.mustRead(carol, rev(1), segment(note, listed(t, "c", "1")))
	if err := b.s.Work.EndDiscovery(t.Context(), b.job.Seq, ""); err != nil {
		t.Fatal(err)
	}
	if got := b.finish(); got.Status != api.StatusCompleted {
		t.Fatalf("the job is %s", got.Status)
	}
	old := b.job
	if _, err := b.s.Jobs.RetryJob(t.Context(), old.ID, uuid.New()); !errors.Is(err, jobs.ErrNothingLeft) {
		t.Errorf("retry while all is well: %v, want ErrNothingLeft", err)
	}
	b.again()
	b.distrust(bob, rev(1))
	job, err := b.s.Jobs.RetryJob(t.Context(), old.ID, uuid.New())
	if err != nil {
		t.Fatal(err)
	}
	if done, err := b.s.Work.DiscoverRetry(t.Context(), job.Seq); err != nil || !done {
		t.Fatal(done, err)
	}
	owed, err := b.s.Work.Owed(t.Context(), job.Seq, "", "", 10)
	if err != nil || len(owed) != 1 || owed[0].DID != alice {
		t.Errorf("to be read: %+v, %v", owed, err)
	}
}

// doubtModel is what a model says of the jobs and the index.
type doubtModel struct {
	*bench
	rng        *rand.Rand
	n          int // revs used
	jobs       map[uint64]*doubtJob
	held       map[syntax.DID]map[string]bool
	distrusted map[string]bool
	done       map[string]int // how often each thing happened
}

type doubtJob struct {
	row   jobs.Job
	repos map[syntax.DID]*doubtRepo
}

type doubtRepo struct {
	host, class   string
	owed, assumed bool
	records       int64
}

// TestAssumedEndsAgainstAModel assumes ends, finds out that they were none,
// reopens, moves and settles at random, in several jobs at once, and compares the
// store with a model after every step.
func TestAssumedEndsAgainstAModel(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	for seed := range uint64(2) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			m := &doubtModel{
				bench: &bench{t: t, s: storetest.OpenConfig(t, store.Config{
					Path: filepath.Join(t.TempDir(), "appview.db"), FlushEvery: time.Millisecond,
				})},
				rng:  rand.New(rand.NewPCG(seed, 1)),
				jobs: map[uint64]*doubtJob{}, held: map[syntax.DID]map[string]bool{}, distrusted: map[string]bool{}, done: map[string]int{},
			}
			for range 3 {
				m.add(newJob(t, m.s, nil))
			}
			for i := range 600 {
				m.step()
				m.compare()
				if i%100 == 0 {
					if err := m.s.Check(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				if t.Failed() {
					t.Fatalf("after step %d", i)
				}
			}
			m.end()
			for _, what := range []string{"assume", "distrusted", "held behind", "distrust", "reopen", "move again", "settle again", "give up", "completed"} {
				if m.done[what] == 0 {
					t.Errorf("never: %s in %v", what, m.done)
				}
			}
		})
	}
}

func (m *doubtModel) add(job jobs.Job) {
	m.jobs[job.Seq] = &doubtJob{row: job, repos: map[syntax.DID]*doubtRepo{}}
}

func (m *doubtModel) did() syntax.DID { return syntax.DID(fmt.Sprintf("did:plc:%02d", m.rng.IntN(60))) }

func (m *doubtModel) host() string { return fmt.Sprintf("https://%d.example.com", m.rng.IntN(6)) }

func (m *doubtModel) step() {
	m.t.Helper()
	seqs := slices.Sorted(maps.Keys(m.jobs))
	j := m.jobs[seqs[m.rng.IntN(len(seqs))]]
	m.job = j.row
	did := m.did()
	for range 5 { // rather one that there is something to do for
		if r := j.repos[did]; r == nil || r.owed {
			break
		}
		did = m.did()
	}
	r := j.repos[did]
	switch n := m.rng.IntN(100); {
	case r == nil:
		m.owe(did)
		m.must(func(done func(error)) error {
			return m.s.Work.Rehost(m.t.Context(), m.job.Seq, did, host, m.host(), done)
		})
		owed := m.owedAt(did)
		j.repos[did] = &doubtRepo{host: owed.Host, owed: true}
	case n < 10:
		m.reopenAll(j)
	case !r.owed:
	case n < 30:
		to := m.host()
		if to != r.host {
			m.must(func(done func(error)) error { return m.s.Work.Rehost(m.t.Context(), m.job.Seq, did, r.host, to, done) })
			r.host = to
			m.note("move again", r.class != "")
		}
	case n < 32:
		if _, err := m.s.Work.SettleHost(m.t.Context(), m.job.Seq, r.host, jobs.Verdict{Class: jobs.ClassFailed, Reason: "host_down"}); err != nil {
			m.t.Fatal(err)
		}
		for _, other := range j.repos {
			if other.host == r.host && other.owed {
				other.settled(jobs.ClassFailed, 0, false)
				m.note("give up", true)
			}
		}
	case n < 36:
		m.mustSettle(jobs.Settlement{
			DID: did, Reading: index.Reading{Host: r.host}, Account: "deactivated",
			Verdict: jobs.Verdict{Class: jobs.ClassUnavailable, Reason: "deactivated"},
		})
		r.settled(jobs.ClassUnavailable, 0, false)
	default:
		m.read(did, r)
	}
}

func (m *doubtModel) note(what string, did bool) {
	if did {
		m.done[what]++
	}
}

// owedAt finds the repo in the queues of the job.
func (m *doubtModel) owedAt(did syntax.DID) jobs.Owed {
	m.t.Helper()
	hosts, err := m.s.Work.OwedHosts(m.t.Context(), m.job.Seq)
	if err != nil {
		m.t.Fatal(err)
	}
	for _, h := range hosts {
		owed, err := m.s.Work.Owed(m.t.Context(), m.job.Seq, h, "", 100)
		if err != nil {
			m.t.Fatal(err)
		}
		for _, o := range owed {
			if o.DID == did {
				return o
			}
		}
	}
	m.t.Fatalf("%s is in no queue", did)
	return jobs.Owed{}
}

// read settles a repo with some records, to its end or to an end that is assumed.
func (m *doubtModel) read(did syntax.DID, r *doubtRepo) {
	m.t.Helper()
	m.n++
	keys := map[string]bool{"m": true}
	for range m.rng.IntN(6) {
		keys[string(rune('n'+m.rng.IntN(8)))] = true
	}
	assume := m.rng.IntN(2) == 0
	if !assume && m.rng.IntN(4) == 0 {
		keys["b"] = true
	}
	seg := segment(note)
	for _, k := range slices.Backward(slices.Sorted(maps.Keys(keys))) {
		seg.Records = append(seg.Records, listed(m.t, k, fmt.Sprint(m.rng.IntN(3))))
	}
	s := settlement(did, rev(m.n), seg)
	if assume {
		s = assuming(did, rev(m.n), seg)
	}
	s.Reading.Host, s.Short.More = r.host, !assume && m.rng.IntN(12) == 0
	held := false
	for k := range m.held[did] {
		held = held || !keys[k]
	}
	err := m.settle(s)
	switch {
	case assume && (m.distrusted[r.host] || held):
		if !errors.Is(err, index.ErrNotTheEnd) {
			m.t.Errorf("%s at %s: %v, want ErrNotTheEnd", did, r.host, err)
		}
		m.note("distrusted", m.distrusted[r.host])
		m.note("held behind", held)
		return
	case err != nil:
		m.t.Errorf("%s at %s: %v", did, r.host, err)
		return
	}
	m.note("assume", assume)
	m.note("distrust", s.Short.More && !m.distrusted[r.host])
	m.note("settle again", r.class != "")
	m.held[did] = keys
	m.distrusted[r.host] = m.distrusted[r.host] || s.Short.More
	r.settled(jobs.ClassDone, int64(len(keys)), assume)
}

// settled is what becomes of a repo that is settled.
func (r *doubtRepo) settled(class string, records int64, assumed bool) {
	if r.class == jobs.ClassFailed {
		class = r.class
	}
	r.class, r.owed, r.assumed, r.records = class, false, assumed, max(r.records, records)
}

func (m *doubtModel) reopenAll(j *doubtJob) {
	m.t.Helper()
	want := map[string]bool{}
	for _, r := range j.repos {
		if r.assumed && m.distrusted[r.host] {
			r.assumed, r.owed = false, true
			want[r.host] = true
			m.note("reopen", true)
		}
	}
	m.reopen(slices.Sorted(maps.Keys(want))...)
}

// compare wants every job to be as the model says, and none of its counters to
// have gone back.
func (m *doubtModel) compare() {
	m.t.Helper()
	for _, j := range m.jobs {
		m.job = j.row
		got := m.row()
		storetest.NothingBack(m.t, j.row, got)
		j.row = got
		var want, is struct{ total, processed, failed, unavailable, reopened, records int64 }
		doubted := map[string]bool{}
		for _, r := range j.repos {
			want.total++
			want.records += r.records
			if r.class != "" {
				want.processed++
			}
			if r.class == jobs.ClassFailed {
				want.failed++
			}
			if r.class == jobs.ClassUnavailable {
				want.unavailable++
			}
			if r.class != "" && r.owed {
				want.reopened++
			}
			if r.assumed && m.distrusted[r.host] {
				doubted[r.host] = true
			}
		}
		is.total, is.processed, is.failed = got.TotalRepos, got.Processed, got.Failed
		is.unavailable, is.reopened, is.records = got.Unavailable, got.Reopened, got.Tally.Records
		if is != want {
			m.t.Errorf("job %d is %+v, want %+v", got.Seq, is, want)
		}
		if hosts, err := m.s.Work.Doubted(m.t.Context(), got.Seq); err != nil || !slices.Equal(hosts, slices.Sorted(maps.Keys(doubted))) {
			m.t.Errorf("job %d: doubted %v, %v; want %v", got.Seq, hosts, err, doubted)
		}
	}
}

// end reads what is owed, and wants every job to be completed no earlier.
func (m *doubtModel) end() {
	m.t.Helper()
	for _, j := range m.jobs {
		m.job = j.row
		if err := m.s.Work.EndDiscovery(m.t.Context(), m.job.Seq, ""); err != nil {
			m.t.Fatal(err)
		}
		for job := m.finish(); job.Status != api.StatusCompleted; job = m.finish() {
			owes := false
			for did, r := range j.repos {
				owes = owes || r.owed || r.assumed && m.distrusted[r.host]
				if r.owed {
					m.read(did, r)
				}
			}
			if !owes {
				m.t.Fatalf("job %+v owes nothing and is not done", job)
			}
			m.reopenAll(j)
		}
		for did, r := range j.repos {
			if r.owed || r.assumed && m.distrusted[r.host] {
				m.t.Errorf("job %d is completed with %s %+v", m.job.Seq, did, r)
			}
		}
		m.note("completed", true)
	}
	m.compare()
}
