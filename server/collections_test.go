package server

import (
	"fmt"
	"net/http"
	"path/filepath"
	"regexp"
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

func (r *rig) collections() []api.Collection {
	r.t.Helper()
	var body api.Collections
	r.get("/admin/collections").decode(r.t, &body)
	return body.Collections
}

// complete runs a job over the network that finds what is given.
func (r *rig) complete(job jobs.Job, records map[syntax.DID][]index.Listed) {
	r.t.Helper()
	ctx := r.t.Context()
	_, err := r.store.Jobs.StartJob(ctx, job.Seq)
	r.check(err)
	for did, list := range records {
		r.settleIn(job, did, index.AccountActive, map[syntax.NSID][]index.Listed{job.Request.Collection: list}, jobs.Verdict{Class: jobs.ClassDone, Reason: "exact"})
	}
	r.check(r.store.Work.EndDiscovery(ctx, job.Seq, ""))
	_, err = r.store.Jobs.FinishJob(ctx, job.Seq, func(jobs.Job) string { return "" })
	r.check(err)
}

func (r *rig) jobOf(id uuid.UUID) jobs.Job {
	r.t.Helper()
	job, err := r.store.Jobs.Job(r.t.Context(), id)
	r.check(err)
	return job
}

func TestCollectionFromItsAdditionToItsRemoval(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	if a := r.get("/admin/collections"); a.status != 200 || a.body != `{"collections":[]}`+"\n" {
		t.Errorf("none: %d %s", a.status, a.body)
	}
	add := func() result { return r.do(http.MethodPost, "/admin/collections", `{"collection":"com.example.note"}`) }
	a := add()
	exact := regexp.MustCompile(`^\{"collection":"com.example.note","job":\{"id":"[0-9a-f-]{36}","status":"running"\}\}` + "\n$")
	if a.status != http.StatusCreated || !exact.MatchString(a.body) {
		t.Fatalf("added: %d %s", a.status, a.body)
	}
	var added api.Added
	a.decode(t, &added)
	if again := add(); again.status != http.StatusOK || again.body != a.body {
		t.Errorf("added again: %d %s", again.status, again.body)
	}
	exact = regexp.MustCompile(`^\{"collections":\[\{"collection":"com.example.note","records":0,"repos":0,"tracked_since":"[^"]+Z","synced_at":null,"age_seconds":null,"refresh_at":null,` +
		`"last_job":\{"id":"[^"]+","status":"running","origin":"request","error":null,"created_at":"[^"]+Z","started_at":null,"completed_at":null\}\}\]\}` + "\n$")
	if a := r.get("/admin/collections"); !exact.MatchString(a.body) {
		t.Errorf("listed: %s", a.body)
	}
	remove := func(query string) result { return r.do(http.MethodDelete, "/admin/collections"+query, "") }
	remove("?collection=com.example.note&records=delete").want(t, 409, "job "+added.Job.ID.String()+": an unfinished job covers it: wait for its end, or cancel it")

	r.complete(r.jobOf(added.Job.ID), map[syntax.DID][]index.Listed{alice: texts(t, 3), bob: texts(t, 2)})
	got := r.collections()[0]
	if got.Records != 5 || got.Repos != 2 || got.SyncedAt == nil || *got.AgeSeconds < 0 || *got.AgeSeconds > 60 || got.RefreshAt == nil ||
		got.LastJob.Status != api.StatusCompleted || got.LastJob.CompletedAt == nil {
		t.Errorf("read: %+v", got)
	}
	if again := add(); again.status != http.StatusOK || again.body != `{"collection":"com.example.note","job":null}`+"\n" {
		t.Errorf("added again: %d %s", again.status, again.body)
	}
	if a := remove("?collection=com.example.note&records=keep"); a.status != 200 || a.body != `{"collection":"com.example.note","deleted":0}`+"\n" {
		t.Errorf("removed: %d %s", a.status, a.body)
	}
	remove("?collection=com.example.note&records=keep").want(t, 404, "com.example.note is not tracked")
	if n := len(r.export("")); n != 5 || len(r.collections()) != 0 {
		t.Errorf("%d records are left, tracked: %+v", n, r.collections())
	}

	add().decode(t, &added)
	r.complete(r.jobOf(added.Job.ID), nil)
	if a := remove("?collection=com.example.note&records=delete"); a.status != 200 || a.body != `{"collection":"com.example.note","deleted":5}`+"\n" {
		t.Errorf("removed: %d %s", a.status, a.body)
	}
	if n := len(r.export("")); n != 0 {
		t.Errorf("%d records are left", n)
	}
}

func TestMistakesAboutCollections(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.check(r.store.Collections.Track(t.Context(), note))
	for body, text := range map[string]string{
		"": "name the collection to track", `{"collection":""}`: "collection is an empty string", `{"collection":"note"}`: "no valid NSID",
		`{"colection":"com.example.note"}`: `unknown member "colection"`, `["com.example.note"]`: "must be a JSON object",
	} {
		r.do(http.MethodPost, "/admin/collections", body).want(t, 400, text)
	}
	r.do(http.MethodPost, "/admin/collections?collection=a.b.c", "").want(t, 400, "the collection goes in the body")
	for query, text := range map[string]string{
		"": "name the collection to remove", "?collection=com.example.note": "records=keep goes on serving them as they are, records=delete deletes them",
		"?collection=com.example.note&records=": "records is empty", "?collection=com.example.note&records=all": `records "all" is neither keep nor delete`,
		"?collection=note&records=keep": "no valid NSID", "?records=keep": "name the collection", "?collection=com.example.note&records=keep&force=1": "unknown parameter",
	} {
		r.do(http.MethodDelete, "/admin/collections"+query, "").want(t, 400, text)
	}
	r.do(http.MethodDelete, "/admin/collections?collection=com.example.note&records=keep", `{"records":"delete"}`).want(t, 400, "nothing is needed in this body")
	r.get("/admin/collections?limit=1").want(t, 400, "this route takes none")
	if got := r.collections(); len(got) != 1 || got[0].LastJob != nil {
		t.Errorf("tracked: %+v", got)
	}
}

// TestEveryAnswerAboutACollectionSaysHowOldItIs goes over all that is served of one.
func TestEveryAnswerAboutACollectionSaysHowOldItIs(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	rec := texts(t, 1)
	paths := []string{
		"/api/records?collection=com.example.note",
		"/admin/records?collection=com.example.note",
		"/admin/records/export?collection=com.example.note",
		"/xrpc/com.atproto.repo.listRecords?repo=" + string(alice) + "&collection=com.example.note",
		"/xrpc/com.atproto.repo.getRecord?repo=" + string(alice) + "&collection=com.example.note&rkey=" + string(rec[0].RKey),
	}
	want := func(what string, header string) {
		t.Helper()
		for _, path := range paths {
			a := r.get(path)
			if got := a.header.Get("Appview-Synced-At"); got != header || a.status != http.StatusOK {
				t.Errorf("%s: %s: %d, header %q, want %q", what, path, a.status, got, header)
			}
			if tag := a.header.Get("ETag"); tag != "" {
				if a := r.do(http.MethodGet, path, "", "If-None-Match", tag); a.status != http.StatusNotModified || a.header.Get("Appview-Synced-At") != header {
					t.Errorf("%s: %s: %d, header %q", what, path, a.status, a.header.Get("Appview-Synced-At"))
				}
			}
		}
	}
	r.settle(alice, index.AccountActive, map[syntax.NSID][]index.Listed{note: rec})
	want("never read as a whole", "")
	job := r.jobOf(r.create(`{"collection":"com.example.note"}`))
	r.complete(job, map[syntax.DID][]index.Listed{alice: rec})
	header := api.Stamp(r.jobOf(job.ID).StartedAt)
	want("read", header)
	want("from the cache", header)
	if a := r.get("/api/records?collection=com.example.note"); !strings.Contains(a.header.Get("Access-Control-Expose-Headers"), "Appview-Synced-At") {
		t.Errorf("pages of other origins do not see it: %v", a.header)
	}
	for _, path := range []string{"/api/records?did=" + string(alice), "/api/records?collection=com.example.other"} {
		if a := r.get(path); a.header.Get("Appview-Synced-At") != "" || a.status != http.StatusOK {
			t.Errorf("%s: %d %v", path, a.status, a.header)
		}
	}
	for _, c := range []string{"*", "note"} {
		r.get("/api/records?collection="+c).want(t, 400, "no valid NSID")
	}
	var st api.Stats
	r.get("/admin/stats").decode(t, &st)
	if got := st.Collections[note]; got.SyncedAt == nil || *got.SyncedAt != header || got.AgeSeconds == nil {
		t.Errorf("stats: %+v", got)
	}
	a := r.do(http.MethodDelete, "/admin/records?collection=com.example.note", "")
	if a.status != http.StatusOK {
		t.Errorf("delete: %d %s", a.status, a.body)
	}
	if a := r.get(paths[0]); a.header.Get("Appview-Synced-At") != "" {
		t.Errorf("what was deleted is said to be of %s", a.header.Get("Appview-Synced-At"))
	}
}

func TestJobSaysWhoWantedIt(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.check(r.store.Collections.Track(t.Context(), note))
	var d api.JobDetail
	if r.get("/admin/backfill/"+r.create("").String()).decode(t, &d); d.Origin != "request" {
		t.Errorf("requested: %+v", d)
	}
	r.complete(r.jobOf(d.ID), nil)
	f, err := r.store.Collections.Freshness(t.Context(), note)
	r.check(err)
	for _, origin := range []api.Origin{api.OriginStart, api.OriginRefresh} {
		job, err := r.store.Collections.CoverCollection(t.Context(), note, uuid.New(), origin, f.Last)
		r.check(err)
		if r.get(pathOf(job)).decode(t, &d); d.Origin != origin {
			t.Errorf("%s: %+v", origin, d)
		}
		r.complete(job, nil)
		f.Last = job.Seq
	}
}

// TestJobThatCarriesOnAForgottenOne is shown without it.
func TestJobThatCarriesOnAForgottenOne(t *testing.T) {
	t.Parallel()
	var ahead atomic.Int64
	st, err := store.Open(store.Config{
		Path: filepath.Join(t.TempDir(), "appview.db"), FlushEvery: time.Millisecond,
		Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	r := newRig(t, func(c *Config) { c.Store = st })
	r.store = st
	r.check(st.Collections.Track(t.Context(), note))
	old, err := st.Collections.CoverCollection(t.Context(), note, uuid.New(), api.OriginRefresh, 0)
	r.check(err)
	r.check(st.Work.EndDiscovery(t.Context(), old.Seq, "the relay is down"))
	_, err = st.Jobs.FinishJob(t.Context(), old.Seq, func(jobs.Job) string { return "" })
	r.check(err)
	retry, err := st.Jobs.RetryJob(t.Context(), old.ID, uuid.New())
	r.check(err)
	var d api.JobDetail
	if r.get(pathOf(retry)).decode(t, &d); d.RetryOf == nil || *d.RetryOf != old.ID.String() {
		t.Errorf("retry: %+v", d)
	}
	r.complete(retry, nil)
	ahead.Store(int64(29 * 24 * time.Hour))
	for done := false; !done; {
		done, err = st.Prune(t.Context())
		r.check(err)
	}
	r.get(pathOf(old)).want(t, 404, "there is no job")
	if a := r.get(pathOf(retry)); a.status != http.StatusOK || !strings.Contains(a.body, `"retry_of":null`) {
		t.Errorf("retry: %d %s", a.status, a.body)
	}
	if got := r.listed(""); fmt.Sprint(got) != fmt.Sprint([]string{retry.ID.String()}) {
		t.Errorf("jobs: %v", got)
	}
}
