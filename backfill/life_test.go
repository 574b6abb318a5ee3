package backfill_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"appview/backfill"
	"appview/internal/api"
	"appview/internal/network"
	"appview/internal/sandbox"
	"appview/internal/sandbox/sandboxtest"
	"appview/store"
	"appview/store/admin"
	"appview/store/index"
	"appview/store/jobs"
	"appview/store/storetest"
)

// life is one index over a world, from its first job on: everything that makes
// commits happens in it. It is lived by one process after the other; each goes on
// with the act in which the one before it ended, as its user would.
type life struct {
	t     *testing.T
	world *sandbox.World
	path  string
	acts  []act
	check func(syntax.DID) bool // which short pages are followed all the same; nil: as always
	most  int64                 // what an account may take of the file; 0: as always
	liar  syntax.DID            // of which the host makes records up: what is served is not what the world holds
	at    int                   // acts that are over
	shift atomic.Int64          // of the clock
	asked atomic.Int64          // requests to hosts for the job that is cancelled

	mu    sync.Mutex
	once  map[string]bool // what has happened to the world, which happens once
	fault func(sandbox.Request) sandbox.Fault
	last  map[uuid.UUID]jobs.Job // as they were committed last
}

// act is what the user of an index does until it has its effect. After a crash it
// is begun again.
type act struct {
	name string
	do   func(context.Context, *process) error
}

// process is one run of the program.
type process struct {
	l *life
	s *store.Store
	b *backfill.Backfill
}

// errRestart ends a process in good order, for the next one to go on.
var errRestart = errors.New("the program is started again")

// newLife makes a world. Its hosts may not offer getRepo, so that large repos are
// read page by page.
func newLife(t *testing.T, world sandbox.Config, acts []act, listed bool) *life {
	t.Helper()
	l := &life{
		t: t, path: filepath.Join(t.TempDir(), "appview.db"), acts: acts, world: sandboxtest.Start(t, world),
		once: map[string]bool{}, last: map[uuid.UUID]jobs.Job{},
	}
	hook := func(q sandbox.Request) sandbox.Fault {
		l.mu.Lock()
		fault := l.fault
		l.mu.Unlock()
		if fault == nil {
			return sandbox.Fault{}
		}
		return fault(q)
	}
	if listed {
		listOnly(l.world, hook)
	} else {
		l.world.SetFault(hook)
	}
	return l
}

// first reports whether something happens for the first time in this life.
func (l *life) first(what string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	had := l.once[what]
	l.once[what] = true
	return !had
}

func (l *life) setFault(fault func(sandbox.Request) sandbox.Fault) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fault = fault
}

// must is for changes of the world.
func (l *life) must(err error) {
	if err != nil {
		l.t.Errorf("change the world: %v", err)
	}
}

// did is the DID of a repo of the world; 0 is the large repo.
func (l *life) did(n int) syntax.DID { return l.world.Repos()[n].DID }

// live runs the life from where it is to its end, or until a hook ends the process.
// It reports whether it has come to the end.
func (l *life) live(hooks store.Hooks) bool {
	l.t.Helper()
	for l.at < len(l.acts) {
		err := l.process(hooks)
		switch {
		case errors.Is(err, errRestart):
		case errors.Is(err, errCrash):
			return false
		case err != nil:
			l.t.Fatalf("act %q: %v", l.acts[l.at].name, err)
		}
	}
	return true
}

// process runs the program once.
func (l *life) process(hooks store.Hooks) (err error) {
	quiet := slog.New(slog.DiscardHandler)
	now := func() time.Time { return time.Now().Add(time.Duration(l.shift.Load())) }
	hooks.Step = 60
	var s *store.Store
	after := hooks.AfterCommit
	hooks.AfterCommit = func() error {
		l.forward(s)
		if after == nil {
			return nil
		}
		return after()
	}
	s, err = store.Open(store.Config{Path: l.path, FlushEvery: 5 * time.Millisecond, Hooks: hooks, Log: quiet, Now: now, MaxAccountBytes: l.most})
	if err != nil {
		return err
	}
	net := newNetwork(l.t, l.world, network.Config{Timing: network.Timing{Probe: 5 * time.Millisecond, MaxProbe: 10 * time.Millisecond}})
	b, err := backfill.New(backfill.Config{Store: s, Network: net, Retry: 5 * time.Millisecond, Attempts: 8, Log: quiet, Now: now})
	if err != nil {
		return errors.Join(err, s.Close())
	}
	if l.check != nil {
		b.Check(l.check)
	}
	ctx, cancel := context.WithTimeout(admin.WithActor(l.t.Context(), admin.Actor{Kind: api.ActorKey, Name: "user"}), 2*patience)
	defer cancel()
	g, running := errgroup.WithContext(ctx)
	p := &process{l: l, s: s, b: b}
	if err = b.Recover(ctx); err == nil {
		g.Go(func() error { return b.Run(running) })
		g.Go(func() error { return s.Run(running) })
		err = p.play(ctx)
	}
	cancel()
	if ended := g.Wait(); err == nil || errors.Is(err, errRestart) {
		err = errors.Join(err, ended)
	}
	net.Close()
	if errClose := s.Close(); errClose != nil {
		err = errors.Join(err, errClose)
	}
	select {
	case <-s.Failed():
		return s.Err() // whatever came of it elsewhere
	default:
		return err
	}
}

// forward proves that no commit has put a counter back, whatever processes there were
// before.
func (l *life) forward(s *store.Store) {
	jobs, err := s.Jobs.List(context.WithoutCancel(l.t.Context()))
	if err != nil {
		l.t.Errorf("jobs: %v", err)
	}
	for _, j := range jobs {
		storetest.NothingBack(l.t, l.last[j.ID], j)
		l.last[j.ID] = j
	}
}

// play goes through the acts that are left.
func (p *process) play(ctx context.Context) error {
	for p.l.at < len(p.l.acts) {
		err := p.l.acts[p.l.at].do(ctx, p)
		if err != nil && !errors.Is(err, errRestart) {
			return err
		}
		p.l.setFault(nil)
		p.l.at++
		if err != nil {
			return err
		}
	}
	return nil
}

// until waits for something that the program is to bring about.
func (p *process) until(ctx context.Context, what string, is func() (bool, error)) error {
	for tick := time.Tick(2 * time.Millisecond); ; {
		if ok, err := is(); ok || err != nil {
			return err
		}
		select {
		case <-tick:
		case <-p.s.Failed():
			return p.s.Err()
		case <-ctx.Done():
			return fmt.Errorf("never came: %s", what)
		}
	}
}

// nth is the nth job of the life, created by make if it is not there yet.
func (p *process) nth(ctx context.Context, n int, create func() (jobs.Job, error)) (jobs.Job, error) {
	jobList, err := p.s.Jobs.List(ctx)
	switch {
	case err != nil:
		return jobs.Job{}, err
	case len(jobList) >= n:
		return jobList[len(jobList)-n], nil
	}
	return create()
}

// created is the nth job, if something else has created it. It may not have had to.
func (p *process) created(ctx context.Context, n int) (jobs.Job, error) {
	return p.nth(ctx, n, func() (jobs.Job, error) { return jobs.Job{}, fmt.Errorf("there is no job %d", n) })
}

// network creates the nth job, for the whole network.
func (p *process) network(ctx context.Context, n int) (jobs.Job, error) {
	return p.nth(ctx, n, func() (jobs.Job, error) { return p.b.Create(ctx, jobs.Request{}) })
}

// asked creates the nth job, by a request that is repeated, here and by the next process.
func (p *process) asked(ctx context.Context, n int) (jobs.Job, error) {
	ctx = jobs.WithIdempotency(ctx, jobs.Idempotency{Key: fmt.Sprint("job ", n), Reply: func(job *jobs.Job, _ bool) (jobs.Reply, error) {
		return jobs.Reply{Status: http.StatusCreated, Body: job.ID.String()}, nil
	}})
	for {
		_, err := p.b.Create(ctx, jobs.Request{})
		if was, is := errors.AsType[*jobs.ReplyError](err); is {
			return p.s.Jobs.Job(ctx, uuid.MustParse(was.Reply.Body))
		}
		if err != nil {
			return jobs.Job{}, err
		}
	}
}

// carryOn creates the nth job, which carries on the one before it.
func (p *process) carryOn(ctx context.Context, n int) (jobs.Job, error) {
	return p.nth(ctx, n, func() (jobs.Job, error) {
		old, err := p.s.Jobs.JobBySeq(ctx, uint64(n-1))
		if err != nil {
			return jobs.Job{}, err
		}
		return p.b.Retry(ctx, old.ID)
	})
}

// end waits for a job to be as wanted.
func (p *process) end(ctx context.Context, job jobs.Job, want api.Status) error {
	return p.await(ctx, job.ID, string(want), func(j jobs.Job) (bool, error) {
		if j.Status.Final() && j.Status != want {
			return false, fmt.Errorf("job %d is %s: %s", j.Seq, j.Status, j.Error)
		}
		return j.Status == want, nil
	})
}

func (p *process) await(ctx context.Context, id uuid.UUID, what string, is func(jobs.Job) (bool, error)) error {
	return p.until(ctx, "job "+what, func() (bool, error) {
		j, err := p.s.Jobs.Job(ctx, id)
		if err != nil {
			return false, err
		}
		return is(j)
	})
}

// lifeWorld is the world of a whole life, before its large repo.
func lifeWorld() sandbox.Config {
	return sandbox.Config{Seed: 30, Repos: 16, Hosts: 2, Collections: statuses(1, 3)}
}

// acts are a whole life. Numbers are those of jobs.
var acts = []act{
	{"keys are made, and one is revoked", func(ctx context.Context, p *process) error {
		for id, secret := range keys {
			key := admin.APIKey{ID: id, Name: secret, Permissions: []string{"stats:read"}}
			if err := p.s.Admin.PutAPIKey(ctx, secret, key); err != nil && !errors.Is(err, store.ErrExists) {
				return err
			}
		}
		return p.s.Admin.RevokeAPIKey(ctx, revoked, false)
	}},
	{"a host asks for a pause, which ends", func(ctx context.Context, p *process) error {
		for _, row := range [][]byte{[]byte(`{}`), nil} {
			if err := p.s.Work.PutPauses(ctx, map[string][]byte{"https://pds.example": row}); err != nil {
				return err
			}
		}
		return nil
	}},
	{"job 1 reads everything, while hosts fail at first", func(ctx context.Context, p *process) error {
		p.l.setFault(func(q sandbox.Request) sandbox.Fault {
			if (q.Method == repoStatus || q.Method == getRepo) && p.l.first("fail "+q.DID) {
				return sandbox.Fault{Name: "sick", Status: http.StatusInternalServerError, Body: []byte(`{"error":"InternalServerError"}`)}
			}
			return sandbox.Fault{}
		})
		return p.complete(ctx, p.network, 1)
	}},
	{"job 2 reads it again, while it changes", func(ctx context.Context, p *process) error {
		if p.l.first("change") {
			p.l.change()
		}
		p.l.setFault(p.l.changing())
		return p.complete(ctx, p.network, 2)
	}},
	{"job 3 is paused", func(ctx context.Context, p *process) error {
		return p.stopAt(ctx, 5, api.StatusPausing, api.StatusPaused)
	}},
	{"job 3 goes on, and is cancelled", func(ctx context.Context, p *process) error {
		job, err := p.network(ctx, 3)
		if err != nil {
			return err
		}
		if _, err := p.b.Move(ctx, job.ID, api.StatusRunning); err != nil && !errors.Is(err, jobs.ErrMove) {
			return err
		}
		return p.stopAt(ctx, 10, api.StatusCancelling, api.StatusCancelled)
	}},
	{"job 4 carries it on", func(ctx context.Context, p *process) error { return p.complete(ctx, p.carryOn, 4) }},
	{"an account and a host are denied, and allowed again", func(ctx context.Context, p *process) error {
		for _, entry := range p.l.denials() {
			if err := p.s.Index.Deny(ctx, entry, "because"); err != nil {
				return err
			}
		}
		for _, entry := range p.l.denials() {
			if err := p.s.Index.Allow(ctx, entry); err != nil && !errors.Is(err, store.ErrNotFound) {
				return err
			}
		}
		return nil
	}},
	{"records are deleted", func(ctx context.Context, p *process) error {
		_, err := p.s.Collections.DeleteRecords(ctx, index.Filter{Collection: notes})
		return err
	}},
	{"the configuration has the collection tracked, and job 5 brings them back", func(ctx context.Context, p *process) error {
		if err := p.b.ConfigureCollection(ctx, notes); err != nil {
			return err
		}
		return p.complete(ctx, p.created, 5)
	}},
	{"another collection is added, and job 6 finds a repo empty", func(ctx context.Context, p *process) error {
		if p.l.first("shrink") {
			p.l.shrink()
		}
		if _, _, err := p.b.AddCollection(ctx, status); err != nil {
			return err
		}
		return p.complete(ctx, p.created, 6)
	}},
	{"job 7, which is asked for again and again, covers both, and finds many gone", func(ctx context.Context, p *process) error {
		return p.complete(ctx, p.asked, 7)
	}},
	{"a collection is removed with its records", func(ctx context.Context, p *process) error {
		_, err := p.s.Collections.RemoveCollection(ctx, status, true)
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		return err
	}},
	{"it is added again, and job 8 brings them back", func(ctx context.Context, p *process) error {
		if _, _, err := p.b.AddCollection(ctx, status); err != nil {
			return err
		}
		return p.complete(ctx, p.created, 8)
	}},
	{"a backup is noted, and a key is used", func(ctx context.Context, p *process) error {
		for id := range keys {
			p.s.Admin.UseAPIKey(id, time.Now())
		}
		return p.s.Admin.Note(ctx, admin.Event{Action: api.ActBackup})
	}},
	{"the program is started again", func(context.Context, *process) error { return errRestart }},
	{"the key index is made", func(ctx context.Context, p *process) error {
		for _, c := range []syntax.NSID{notes, status} {
			for done := false; !done; {
				var err error
				if done, err = p.s.Index.IndexKeys(ctx, c); err != nil {
					return err
				}
			}
		}
		return nil
	}},
	{"many days go by, and what is old is forgotten", func(ctx context.Context, p *process) error {
		// The store looks at the clock when it commits: before they go by, and after.
		if _, err := p.s.Prune(ctx); err != nil {
			return err
		}
		p.l.shift.Add(int64(40 * 24 * time.Hour))
		for done := false; !done; {
			var err error
			if done, err = p.s.Prune(ctx); err != nil {
				return err
			}
		}
		if _, _, err := p.s.Jobs.JobRepos(ctx, 8, "", 1, nil); !errors.Is(err, store.ErrNotFound) {
			return fmt.Errorf("the work of a job that ended 40 days ago: %w", err)
		}
		return nil
	}},
}

var (
	revoked = uuid.MustParse("11111111-1111-4111-8111-111111111111")
	keys    = map[uuid.UUID]string{revoked: "hv_revoked", uuid.MustParse("22222222-2222-4222-8222-222222222222"): "hv_used"}
)

// doubtWorld is that of doubt: one host with short pages.
func doubtWorld() sandbox.Config {
	return sandbox.Config{Seed: 109, Repos: 81, Hosts: 1, Collections: statuses(2, 4)}
}

// doubt is a short life in which a host's short pages turn out not to be the end,
// after many ends have been taken for granted.
var doubt = []act{
	{"job 1 takes ends for granted, and comes to doubt them", func(ctx context.Context, p *process) error {
		return p.complete(ctx, func(ctx context.Context, n int) (jobs.Job, error) {
			return p.nth(ctx, n, func() (jobs.Job, error) { return p.b.Create(ctx, jobs.Request{Collection: status}) })
		}, 1)
	}},
}

// begin makes the repos of doubt come in turns: those whose short pages are the end,
// those whose are not, and one that is looked at.
func (l *life) begin() {
	dids := inOrder(l.world)
	newTurns(dids[:60], dids[60:80], dids[80:]).watch(l.world, dids[60:])
	l.check = func(did syntax.DID) bool { return did == dids[80] }
}

// hardship is a short life with a host that is down. It takes its time.
var hardship = []act{
	{"job 1 gives up a host", func(ctx context.Context, p *process) error {
		dead := p.l.world.HostURLs()[1]
		p.l.setFault(func(q sandbox.Request) sandbox.Fault {
			if q.Host != dead {
				return sandbox.Fault{}
			}
			return sandbox.Fault{Name: "dead", Status: http.StatusBadGateway, Header: http.Header{"Content-Type": {"text/html"}}, Body: []byte("<html>Bad Gateway</html>")}
		})
		return p.complete(ctx, p.network, 1)
	}},
	{"job 2 carries it on when the host is back", func(ctx context.Context, p *process) error { return p.complete(ctx, p.carryOn, 2) }},
}

// stopAt has job 3 stop, or pause, when hosts were asked for so much for it, and no
// longer answer.
func (p *process) stopAt(ctx context.Context, requests int64, ask, end api.Status) error {
	p.l.setFault(func(q sandbox.Request) sandbox.Fault {
		return sandbox.Fault{Hang: q.Part == sandbox.PartPDS && p.l.asked.Add(1) > requests}
	})
	job, err := p.network(ctx, 3)
	if err != nil {
		return err
	}
	err = p.await(ctx, job.ID, "is half done", func(j jobs.Job) (bool, error) {
		return j.Status != api.StatusRunning || p.l.asked.Load() > requests, nil
	})
	if err != nil {
		return err
	}
	if _, err := p.b.Move(ctx, job.ID, ask); err != nil && !errors.Is(err, jobs.ErrMove) {
		return err
	}
	return p.end(ctx, job, end)
}

// complete creates the nth job, unless it is there, and waits for it to complete.
func (p *process) complete(ctx context.Context, create func(context.Context, int) (jobs.Job, error), n int) error {
	job, err := create(ctx, n)
	if err != nil {
		return err
	}
	return p.end(ctx, job, api.StatusCompleted)
}

// denials are an account and a host.
func (l *life) denials() []string {
	entry, err := index.DenialOf(l.world.HostURLs()[0])
	l.must(err)
	return []string{string(l.did(4)), entry}
}

// grow makes a large repo: too large to be read in one step, however it is read.
func (l *life) grow() error {
	var writes []sandbox.Write
	for n := range 620 {
		value := map[string]any{"$type": string(notes), "text": fmt.Sprint(n) + strings.Repeat("x", 3600), "createdAt": "2026-01-01T00:00:00Z"}
		writes = append(writes, sandbox.Write{Op: sandbox.OpCreate, Collection: notes, Value: value})
	}
	_, err := l.world.Apply(l.did(0), writes)
	return err
}

// change is what happens to the world between two jobs.
func (l *life) change() {
	_, err := l.world.Create(l.did(1), status, "", butterfly())
	l.must(err)
	_, err = l.world.Empty(l.did(2)) // and the relay names it no more
	l.must(err)
	l.world.Forget(l.did(2))
	l.must(l.world.Deactivate(l.did(3)))
	l.must(l.world.DeleteAccount(l.did(5)))
	l.must(l.world.Tombstone(l.did(6)))
	for _, rec := range l.some(50) {
		l.must(l.world.Delete(l.did(0), notes, rec))
	}
}

// changing is what happens to the world during a job: an account moves when its
// host is first asked for it, and the large repo changes when half of it is read.
func (l *life) changing() func(sandbox.Request) sandbox.Fault {
	mover := l.did(7)
	return func(q sandbox.Request) sandbox.Fault {
		switch {
		case (q.Method == repoStatus || q.Method == getRepo) && q.DID == string(mover) && l.first("move"):
			home, err := l.world.Repo(mover)
			l.must(err)
			for _, url := range l.world.HostURLs() {
				if url != home.Host {
					l.must(l.world.Move(mover, url))
					break
				}
			}
		case q.Method == listRecords && q.DID == string(l.did(0)) && l.halfway(q) && l.first("halfway"):
			for _, rec := range l.some(5) {
				l.must(l.world.Delete(l.did(0), notes, rec))
			}
		}
		return sandbox.Fault{}
	}
}

// halfway reports whether a request asks for the middle of the large repo.
func (l *life) halfway(q sandbox.Request) bool {
	keys := l.some(2)
	return q.Collection == notes && q.Cursor != "" && q.Cursor < string(keys[1])
}

// some are record keys of the large repo's notes, evenly spread.
func (l *life) some(n int) (keys []syntax.RecordKey) {
	all := l.world.TruthOf(l.did(0), notes)
	uris := slices.Sorted(maps.Keys(all))
	for i := range n {
		keys = append(keys, all[uris[i*len(uris)/n]].RKey)
	}
	return keys
}

// shrink deletes much, so that it takes several transactions to follow. An account that
// was deactivated is back as it was.
func (l *life) shrink() {
	var writes []sandbox.Write
	for _, rkey := range l.some(100) {
		writes = append(writes, sandbox.Write{Op: sandbox.OpDelete, Collection: notes, RKey: rkey})
	}
	_, err := l.world.Apply(l.did(0), writes)
	l.must(err)
	_, err = l.world.Empty(l.did(8))
	l.must(errors.Join(err, l.world.Activate(l.did(3))))
}

// verify proves that the file is in order and that the index serves what the world
// holds, and returns the jobs in order of creation.
func (l *life) verify() []jobs.Job {
	l.t.Helper()
	s, err := store.Open(store.Config{Path: l.path, ReadOnly: true})
	if err != nil {
		l.t.Fatal(err)
	}
	(&rig{t: l.t, world: l.world, store: s, liar: l.liar}).wantTruth("")
	jobs, err := s.Jobs.List(l.t.Context())
	log, _, errLog := s.Admin.Events(l.t.Context(), 0, 10_000)
	if err := errors.Join(err, errLog, s.Close()); err != nil {
		l.t.Fatal(err)
	}
	storetest.Check(l.t, l.path)
	slices.Reverse(jobs)
	l.audited(jobs, log)
	return jobs
}

// audited proves that the audit log has the creation of every job once: whatever a
// crash undoes and a user does again.
func (l *life) audited(jobs []jobs.Job, log []admin.Event) {
	l.t.Helper()
	noted := map[string]int{}
	for _, e := range log {
		if e.Action == api.ActCreateJob || e.Action == api.ActRetryJob {
			noted[e.Target]++
		}
	}
	for _, j := range jobs {
		if noted[j.ID.String()] != 1 {
			l.t.Errorf("the audit log has the creation of job %d %d times", j.Seq, noted[j.ID.String()])
		}
		delete(noted, j.ID.String())
	}
	if len(noted) > 0 {
		l.t.Errorf("the audit log has jobs that there are not: %v", noted)
	}
}
