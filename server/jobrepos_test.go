package server

import (
	"encoding/base64"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/google/uuid"

	"appview/internal/api"
	"appview/store"
	"appview/store/index"
	"appview/store/jobs"
)

const (
	dora = syntax.DID("did:web:dora.example.com")
	emil = syntax.DID("did:web:emil.example.com")
	fred = syntax.DID("did:web:fred.example.com")
)

// mixed makes a job with a repo of each kind: alice was read, bob is empty, carol
// is unavailable, dora was given up, emil is not looked up yet, and fred is to be
// tried again.
func (r *rig) mixed() jobs.Job {
	r.t.Helper()
	ctx := r.t.Context()
	job, err := r.store.Jobs.Job(ctx, r.create(""))
	r.check(err)
	_, err = r.store.Jobs.StartJob(ctx, job.Seq)
	r.check(err)
	r.settleIn(job, alice, index.AccountActive, map[syntax.NSID][]index.Listed{note: texts(r.t, 2)}, jobs.Verdict{Class: jobs.ClassDone, Reason: "exact"})
	r.settleIn(job, bob, index.AccountActive, map[syntax.NSID][]index.Listed{note: nil}, jobs.Verdict{Class: jobs.ClassDone, Reason: "empty"})
	r.settleIn(job, carol, "deactivated", nil, jobs.Verdict{Class: jobs.ClassUnavailable, Reason: "deactivated"})
	r.settleIn(job, dora, index.AccountActive, nil, jobs.Verdict{Class: jobs.ClassFailed, Reason: "timeout", Detail: "no answer in 30s"})
	_, err = r.store.Work.Discover(ctx, job.Seq, jobs.Discovery{Listing: "x", DIDs: []syntax.DID{emil, fred}})
	r.check(err)
	r.wait(func(done func(error)) error {
		return r.store.Work.Rehost(ctx, job.Seq, fred, "", "https://slow.test", done)
	})
	late := jobs.Owed{
		DID: fred, Host: "https://slow.test", Attempts: 2, NotBefore: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC),
		Reason: "http_5xx", Detail: "answered 500",
	}
	r.wait(func(done func(error)) error { return r.store.Work.Postpone(ctx, job.Seq, late, done) })
	return job
}

// end ends a job.
func (r *rig) end(job jobs.Job) {
	r.t.Helper()
	r.check(r.store.Work.EndDiscovery(r.t.Context(), job.Seq, ""))
	_, err := r.store.Jobs.MoveJob(r.t.Context(), job.ID, api.StatusCancelling)
	r.check(err)
	_, err = r.store.Jobs.FinishJob(r.t.Context(), job.Seq, func(jobs.Job) string { return "" })
	r.check(err)
}

func TestReposOfAJob(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	job := r.mixed()
	want := `{"repos":[` + strings.Join([]string{
		`{"did":"did:plc:alice7777777777777777777","pds":"https://pds.test","state":"done","reason":"exact","attempts":0,"next_attempt_at":null,"records":2,"rejected_records":0,"rev":"%s"}`,
		`{"did":"did:plc:bob777777777777777777777","pds":"https://pds.test","state":"empty","reason":"empty","attempts":0,"next_attempt_at":null,"records":0,"rejected_records":0,"rev":"%s"}`,
		`{"did":"did:web:carol.example.com","pds":"https://pds.test","state":"unavailable","reason":"deactivated","attempts":0,"next_attempt_at":null,"records":0,"rejected_records":0,"rev":"%s"}`,
		`{"did":"did:web:dora.example.com","pds":"https://pds.test","state":"failed","reason":"timeout","attempts":0,"next_attempt_at":null,"records":0,"rejected_records":0,"rev":"%s"}`,
		`{"did":"did:web:emil.example.com","pds":null,"state":"pending","reason":null,"attempts":0,"next_attempt_at":null,"records":0,"rejected_records":0,"rev":null}`,
		`{"did":"did:web:fred.example.com","pds":"https://slow.test","state":"pending","reason":"http_5xx","attempts":2,"next_attempt_at":"2030-01-02T03:04:05Z","records":0,"rejected_records":0,"rev":null}`,
	}, ",") + "]}\n"
	revs := make([]any, 4)
	for i := range revs {
		revs[i] = syntax.NewTID(r.rev.Time().UnixMicro()-int64(3-i), 0)
	}
	if a := r.get(pathOf(job) + "/repos"); a.status != 200 || a.body != fmt.Sprintf(want, revs...) {
		t.Errorf("got %d %s, want %s", a.status, a.body, fmt.Sprintf(want, revs...))
	}
	for state, want := range map[string][]syntax.DID{
		"pending": {emil, fred}, "done": {alice}, "empty": {bob}, "unavailable": {carol}, "failed": {dora},
	} {
		if got := r.reposOf(job, "state="+state); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", state, got, want)
		}
	}
}

func pathOf(job jobs.Job) string { return "/admin/backfill/" + job.ID.String() }

// reposOf pages through the repos of a job.
func (r *rig) reposOf(job jobs.Job, query string) (dids []syntax.DID) {
	r.t.Helper()
	for cursor := ""; ; {
		var page api.RepoPage[api.Repo]
		a := r.get(pathOf(job) + "/repos?" + query + cursor)
		if a.status != http.StatusOK {
			r.t.Fatalf("%d %s", a.status, a.body)
		}
		a.decode(r.t, &page)
		for _, one := range page.Repos {
			dids = append(dids, one.DID)
		}
		if page.Cursor == "" {
			return dids
		}
		cursor = "&cursor=" + page.Cursor
	}
}

func TestReposArePagedWhileTheJobRuns(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	job := r.mixed()
	everything := []syntax.DID{alice, bob, carol, dora, emil, fred}
	for _, limit := range []string{"1", "2", "5", "6", "1000"} {
		if got := r.reposOf(job, "limit="+limit); !slices.Equal(got, everything) {
			t.Errorf("limit %s: %v", limit, got)
		}
	}
	var page api.RepoPage[api.Repo]
	r.get(pathOf(job)+"/repos?limit=4").decode(t, &page)
	first := page.Cursor
	// In the meantime emil is settled, and repos are found before and behind the cursor.
	r.settleIn(job, emil, index.AccountActive, nil, jobs.Verdict{Class: jobs.ClassDone, Reason: "empty"})
	_, err := r.store.Work.Discover(t.Context(), job.Seq, jobs.Discovery{Listing: "y", DIDs: []syntax.DID{"did:plc:aaa", "did:web:z.example"}})
	r.check(err)
	page = api.RepoPage[api.Repo]{}
	r.get(pathOf(job)+"/repos?limit=4&cursor="+first).decode(t, &page)
	if len(page.Repos) != 3 || page.Repos[0].DID != emil || page.Repos[0].State != api.RepoEmpty || page.Repos[1].DID != fred || page.Cursor != "" {
		t.Errorf("second page: %+v", page)
	}
	r.end(job)
	if got := r.reposOf(job, "state=pending&limit=1"); len(got) != 3 {
		t.Errorf("pending after the end: %v", got)
	}
}

func TestPageOfReposIsLookedForInABoundedNumberOfThem(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	job, err := r.store.Jobs.Job(t.Context(), r.create(""))
	r.check(err)
	dids := make([]syntax.DID, 10_001)
	for i := range dids {
		dids[i] = syntax.DID(fmt.Sprintf("did:web:%05d.example.com", i))
	}
	_, err = r.store.Work.Discover(t.Context(), job.Seq, jobs.Discovery{Listing: "x", DIDs: dids})
	r.check(err)
	var page api.RepoPage[api.Repo]
	r.get(pathOf(job)+"/repos?state=failed").decode(t, &page)
	if len(page.Repos) != 0 || page.Cursor == "" {
		t.Errorf("the search did not end early: %+v", page)
	}
	last := dids[len(dids)-1]
	r.settleIn(job, last, index.AccountActive, nil, jobs.Verdict{Class: jobs.ClassFailed, Reason: "timeout"})
	if got := r.reposOf(job, "state=failed"); !slices.Equal(got, []syntax.DID{last}) {
		t.Errorf("got %v", got)
	}
	if a := r.get(pathOf(job) + "/report"); strings.Count(a.body, "\n") != len(dids) || strings.Count(a.body, `"class":"pending"`) != len(dids)-1 {
		t.Errorf("the report has %d lines", strings.Count(a.body, "\n"))
	}
}

func TestReposRefuseWhatTheyDoNotKnow(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	job, other := r.mixed(), r.mixed()
	var page api.RepoPage[api.Repo]
	r.get(pathOf(job)+"/repos?limit=1").decode(t, &page)
	cursor := "cursor=" + page.Cursor
	broken := base64.RawURLEncoding.EncodeToString([]byte("r1\x00" + job.ID.String() + "\x00\x00x"))
	records := "cursor=" + cursorOf(t, r)
	for query, text := range map[string]string{
		"state=settled": `state "settled" is none of [pending done empty unavailable failed]`, "state=": "state is empty",
		"limit=0": "limit must be a number from 1 to 1000", "limit=1001": "from 1 to 1000", "limit=x": "from 1 to 1000",
		"cursor=x": "was not made here", "cursor=" + broken: "is broken", "state=done&" + cursor: "another query",
		records: "was not made here", "class=done": "unknown parameter", "state=done&state=failed": "given twice",
	} {
		r.get(pathOf(job)+"/repos?"+query).want(t, 400, text)
	}
	r.get(pathOf(other)+"/repos?"+cursor).want(t, 400, "another query")
	for _, path := range []string{"repos", "pds-summary", "report"} {
		r.get("/admin/backfill/"+uuid.NewString()+"/"+path).want(t, 404, "there is no job")
		r.get("/admin/backfill/7/"+path).want(t, 404, "a job's id is a UUID")
	}
}

// cursorOf is a cursor of a list of records.
func cursorOf(t *testing.T, r *rig) string {
	t.Helper()
	r.settle("did:web:cursor.example", index.AccountActive, map[syntax.NSID][]index.Listed{note: texts(t, 3)})
	var page struct {
		Records []any
		Cursor  string
	}
	r.get("/admin/records?collection=com.example.note&limit=1").decode(t, &page)
	return page.Cursor
}

func TestReposOfAJobOfLongAgoAreForgotten(t *testing.T) {
	t.Parallel()
	var passed atomic.Int64 // time since the test began
	st, err := store.Open(store.Config{
		Path: filepath.Join(t.TempDir(), "appview.db"), FlushEvery: time.Millisecond, Log: slog.New(slog.DiscardHandler),
		Now: func() time.Time { return time.Now().Add(time.Duration(passed.Load())) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	r := newRig(t, func(c *Config) { c.Store, c.Jobs = st, &idleJobs{store: st} })
	r.store = st
	job := r.mixed()
	r.end(job)
	passed.Store(int64(30 * 24 * time.Hour))
	for done := false; !done; {
		done, err = st.Prune(t.Context())
		r.check(err)
	}
	for _, path := range []string{"/repos", "/pds-summary", "/report"} {
		r.get(pathOf(job)+path).want(t, 404, "the repos of job "+job.ID.String()+" are forgotten")
	}
	r.do(http.MethodPost, pathOf(job)+"/retry", "").want(t, 400, "its repos are forgotten")
	if a := r.get(pathOf(job)); a.status != http.StatusOK {
		t.Errorf("the job itself: %d %s", a.status, a.body)
	}
}
