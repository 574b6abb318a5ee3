package server

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/google/uuid"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"

	"appview/internal/api"
	"appview/internal/record"
	"appview/server/answer"
	"appview/store"
	"appview/store/index"
	"appview/store/jobs"
)

const (
	testKey = "hv_the-key-of-these-tests-0123"
	status  = syntax.NSID("xyz.statusphere.status")
	note    = syntax.NSID("com.example.note")
	alice   = syntax.DID("did:plc:alice7777777777777777777")
	bob     = syntax.DID("did:plc:bob777777777777777777777")
	carol   = syntax.DID("did:web:carol.example.com")
)

// rig is a server over a real store, with jobs that nobody works on.
type rig struct {
	t      *testing.T
	path   string // of the database
	store  *store.Store
	jobs   *idleJobs
	server *Server
	http   *httptest.Server
	logs   *logBuffer
	rev    syntax.TID
	base   string // that all routes of server stand behind
}

// idleJobs keeps jobs in the store and starts nothing.
type idleJobs struct {
	store *store.Store

	mu      sync.Mutex
	fail    error
	panics  bool
	created []jobs.Request
	waiting api.Waiting
	waits   string // what the host that a job waits for said last; empty: it waits for none
	repos   float64
	records float64

	plan func(context.Context, jobs.Request) (api.Plan, error)

	restless bool  // every look at a job shows another speed
	looked   int64 // how often Progress was called
}

func (j *idleJobs) Create(ctx context.Context, req jobs.Request) (jobs.Job, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.panics {
		panic("a secret cause")
	}
	if j.fail != nil {
		return jobs.Job{}, j.fail
	}
	if err := ctx.Err(); err != nil {
		return jobs.Job{}, err
	}
	j.created = append(j.created, req)
	return j.store.Jobs.CreateJob(ctx, uuid.New(), req, nil)
}

func (j *idleJobs) Move(ctx context.Context, id uuid.UUID, to api.Status) (jobs.Job, error) {
	return j.store.Jobs.MoveJob(ctx, id, to)
}

func (j *idleJobs) Retry(ctx context.Context, id uuid.UUID) (jobs.Job, error) {
	return j.store.Jobs.RetryJob(ctx, id, uuid.New())
}

func (j *idleJobs) AddCollection(ctx context.Context, c syntax.NSID) (*jobs.Job, bool, error) {
	return j.store.Collections.AddCollection(ctx, c, uuid.New())
}

// RefreshAt is a day after the collection was read.
func (j *idleJobs) RefreshAt(c jobs.Collection) time.Time {
	if c.Fresh.SyncedAt.IsZero() {
		return time.Time{}
	}
	return c.Fresh.SyncedAt.Add(24 * time.Hour)
}

func (j *idleJobs) Progress(jobs.Job) (api.Waiting, float64, float64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.looked++
	if j.restless {
		return j.waiting, float64(j.looked), j.records
	}
	return j.waiting, j.repos, j.records
}

func (j *idleJobs) Waits(jobs.Job) (host string, since, until time.Time, answer string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.waits == "" {
		return "", time.Time{}, time.Time{}, ""
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	return "https://relay.example", at, at.Add(2 * time.Minute), j.waits
}

// Plan calls the function that a test has given, or plans nothing.
func (j *idleJobs) Plan(ctx context.Context, req jobs.Request) (api.Plan, error) {
	j.mu.Lock()
	plan := j.plan
	j.mu.Unlock()
	if plan == nil {
		return api.Plan{
			Collection: api.Known(req.Collection.String(), req.Collection != ""), Scope: api.ScopeDIDs, Targets: []syntax.NSID{}, PerHost: []api.HostLoad{},
			Basis: api.PlanBasis{Repos: api.SourceNamed, Hosts: api.SourceLookup, Requests: api.SourceFixed},
		}, nil
	}
	return plan(ctx, req)
}

func (j *idleJobs) looks() int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.looked
}

// logBuffer is a log that tests read.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
	hit chan struct{} // something was logged
}

// wait waits until the log holds the text.
func (l *logBuffer) wait(t *testing.T, text string) {
	t.Helper()
	late := time.After(time.Minute)
	for !strings.Contains(l.String(), text) {
		select {
		case <-l.hit:
		case <-late:
			t.Fatalf("%q was never logged, but:\n%s", text, l)
		}
	}
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case l.hit <- struct{}{}:
	default:
	}
	return l.buf.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func newRig(t *testing.T, change ...func(*Config)) *rig {
	t.Helper()
	path := filepath.Join(t.TempDir(), "appview.db")
	st, err := store.Open(store.Config{
		Path: path, FlushEvery: time.Millisecond, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	r := &rig{
		t: t, path: path, store: st, jobs: &idleJobs{store: st}, logs: &logBuffer{hit: make(chan struct{}, 1)},
		rev: syntax.NewTID(1_700_000_000_000_000, 0),
	}
	cfg := Config{
		Store: st, Jobs: r.jobs, Planner: r.jobs, AdminKey: testKey, Version: "v-test",
		Log: slog.New(slog.NewTextHandler(r.logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, c := range change {
		c(&cfg)
	}
	r.base = cfg.BasePath
	if r.server, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	r.server.guesses.every = 0 // tests try many wrong keys
	r.http = httptest.NewUnstartedServer(r.server.Handler())
	r.http.Config.ConnContext = answer.WithConnection
	r.http.Start()
	t.Cleanup(r.http.Close)
	return r
}

// answer is what came back.
type result struct {
	status int
	header http.Header
	body   string
}

func (r *rig) do(method, path, body string, header ...string) result {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.http.URL+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+testKey)
	for i := 0; i < len(header); i += 2 {
		req.Header.Del(header[i])
		if header[i+1] != "" {
			req.Header.Set(header[i], header[i+1])
		}
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
	}
	res, err := r.http.Client().Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	a := result{res.StatusCode, res.Header, string(data)}
	if route, isBelow := strings.CutPrefix(path, r.base); isBelow {
		theDescription().conforms(r.t, method, route, body, a)
	}
	return a
}

func (r *rig) get(path string) result { r.t.Helper(); return r.do(http.MethodGet, path, "") }

// want fails unless the answer has the status and its error holds the text.
func (a result) want(t *testing.T, status int, text string) {
	t.Helper()
	var e struct{ Error, Message string }
	_ = json.Unmarshal([]byte(a.body), &e)
	if a.status != status || !strings.Contains(e.Error+" "+e.Message, text) {
		t.Errorf("got %d %s, want %d with %q", a.status, a.body, status, text)
	}
}

func (a result) decode(t *testing.T, into any) {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(a.body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		t.Fatalf("answer %d %s: %v", a.status, a.body, err)
	}
}

// create makes a job and returns its id.
func (r *rig) create(body string) uuid.UUID {
	r.t.Helper()
	a := r.do(http.MethodPost, "/admin/backfill", body)
	if a.status != http.StatusCreated {
		r.t.Fatalf("create: %d %s", a.status, a.body)
	}
	var ref api.JobRef
	a.decode(r.t, &ref)
	return ref.ID
}

// verified is a record that can be proved.
func verified(t *testing.T, rkey, value string) index.Listed {
	t.Helper()
	data, err := atdata.UnmarshalJSON([]byte(value))
	if err != nil {
		t.Fatal(err)
	}
	block, err := atdata.MarshalCBOR(data)
	if err != nil {
		t.Fatal(err)
	}
	id, err := cid.V1Builder{Codec: cid.DagCBOR, MhType: multihash.SHA2_256}.Sum(block)
	if err != nil {
		t.Fatal(err)
	}
	body, err := record.FromJSON([]byte(value), id.String())
	if err != nil {
		t.Fatal(err)
	}
	return index.Listed{RKey: syntax.RecordKey(rkey), Body: body}
}

// text is a record with a text.
func text(t *testing.T, rkey, text string) index.Listed {
	t.Helper()
	return verified(t, rkey, fmt.Sprintf(`{"$type":"com.example.note","text":%q}`, text))
}

// settle runs a whole job over one repo: it reads the records given, in one page.
func (r *rig) settle(did syntax.DID, account string, records map[syntax.NSID][]index.Listed) {
	r.t.Helper()
	ctx := r.t.Context()
	job, err := r.store.Jobs.CreateJob(ctx, uuid.New(), jobs.Request{DID: did}, nil)
	r.check(err)
	_, err = r.store.Jobs.StartJob(ctx, job.Seq)
	r.check(err)
	r.settleIn(job, did, account, records, jobs.Verdict{Class: jobs.ClassDone, Reason: "exact"})
	r.check(r.store.Work.EndDiscovery(ctx, job.Seq, ""))
	_, err = r.store.Jobs.FinishJob(ctx, job.Seq, func(jobs.Job) string { return "" })
	r.check(err)
}

// settleIn finds a repo in a job and settles it.
func (r *rig) settleIn(job jobs.Job, did syntax.DID, account string, records map[syntax.NSID][]index.Listed, v jobs.Verdict) {
	r.t.Helper()
	r.settleWith(job, did, func(set *jobs.Settlement) {
		set.Account = account
		set.Verdict = v
		for c, list := range records {
			set.Reading.Segments = append(set.Reading.Segments, index.Segment{Collection: c, Records: list})
			set.Complete = append(set.Complete, c)
		}
	})
}

// settleWith has the job find a repo and settle it with what fill says.
func (r *rig) settleWith(job jobs.Job, did syntax.DID, fill func(*jobs.Settlement)) {
	r.t.Helper()
	ctx := r.t.Context()
	_, err := r.store.Work.Discover(ctx, job.Seq, jobs.Discovery{Listing: "test", DIDs: []syntax.DID{did}})
	r.check(err)
	r.wait(func(done func(error)) error {
		return r.store.Work.Rehost(ctx, job.Seq, did, "", "https://pds.test", done)
	})
	r.rev = syntax.NewTID(r.rev.Time().UnixMicro()+1, 0)
	set := jobs.Settlement{DID: did, Floor: r.rev, Reading: index.Reading{Host: "https://pds.test", Rev: r.rev, Source: index.SourceListRecords}}
	fill(&set)
	r.wait(func(done func(error)) error { return r.store.Work.Settle(ctx, job.Seq, set, done) })
}

func (r *rig) wait(f func(done func(error)) error) {
	r.t.Helper()
	done := make(chan error, 1)
	r.check(f(func(err error) { done <- err }))
	select {
	case err := <-done:
		r.check(err)
	case <-time.After(10 * time.Second):
		r.t.Fatal("the store did not answer")
	}
}

func (r *rig) check(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// jobsStored is how many jobs there are.
func (r *rig) jobsStored() int {
	r.t.Helper()
	jobs, err := r.store.Jobs.List(r.t.Context())
	r.check(err)
	return len(jobs)
}
