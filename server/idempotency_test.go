package server

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"appview/internal/api"
	"appview/store"
	"appview/store/admin"
	"appview/store/index"
	"appview/store/jobs"
)

// repeatable are requests that make a job, one of each route, with what makes them be
// accepted, other spellings of the same request, and another request of the route.
var repeatable = map[string]struct {
	prepare    func(*rig) (path string)
	body       string
	same       []string
	other      string
	otherPath  bool // the other request has another path
	wantStatus int
}{
	"create": {
		prepare: func(*rig) string { return "/admin/backfill" },
		body:    `{"collection":"xyz.statusphere.status","did":"did:plc:alice7777777777777777777"}`,
		same: []string{
			` {"did" : "did:plc:alice7777777777777777777", "dids": null, "collection":"XYZ.statusphere.status"} `,
		},
		other: `{"collection":"xyz.statusphere.status"}`, wantStatus: http.StatusCreated,
	},
	"create everything": {
		prepare: func(*rig) string { return "/admin/backfill" },
		body:    "", same: []string{"{}", " \n", `{"collection":null}`}, other: `{"collection":"xyz.statusphere.status"}`,
		wantStatus: http.StatusCreated,
	},
	"retry": {
		prepare: func(r *rig) string {
			job := r.mixed()
			r.end(job)
			return pathOf(job) + "/retry"
		},
		same: []string{"{}"}, otherPath: true, wantStatus: http.StatusCreated,
	},
	"collection": {
		prepare: func(*rig) string { return "/admin/collections" },
		body:    `{"collection":"com.example.note"}`, same: []string{`{"collection":"COM.example.note"}`},
		other: `{"collection":"com.example.other"}`, wantStatus: http.StatusCreated,
	},
	"collection that is tracked": {
		prepare: func(r *rig) string {
			r.check(r.store.Collections.Track(r.t.Context(), note))
			return "/admin/collections"
		},
		body: `{"collection":"com.example.note"}`, other: `{"collection":"com.example.other"}`, wantStatus: http.StatusOK,
	},
}

// TestRepeatedRequestMakesOneJob repeats requests with their Idempotency-Key: while the
// job runs, when it has ended, and in another process. Another request with the key
// changes nothing.
func TestRepeatedRequestMakesOneJob(t *testing.T) {
	t.Parallel()
	for name, c := range repeatable {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			path := c.prepare(r)
			before := r.jobsStored()
			post := func(body string) result {
				t.Helper()
				return r.do(http.MethodPost, path, body, api.IdempotencyKey, "a key: \"!~\"")
			}
			first := post(c.body)
			if first.status != c.wantStatus {
				t.Fatalf("%d %s", first.status, first.body)
			}
			jobs := r.jobsStored()
			if made := c.wantStatus == http.StatusCreated; made != (jobs == before+1) {
				t.Fatalf("%d jobs, before it were %d", jobs, before)
			}
			again := func(when, body string) {
				t.Helper()
				a := post(body)
				if a.status != first.status || a.body != first.body || a.header.Get("Location") != first.header.Get("Location") ||
					a.header.Get("Content-Type") != first.header.Get("Content-Type") {
					t.Errorf("%s, %q: %d %s to %q, the first answer was %d %s to %q", when, body,
						a.status, a.body, a.header.Get("Location"), first.status, first.body, first.header.Get("Location"))
				}
				if n := r.jobsStored(); n != jobs {
					t.Errorf("%s, %q: %d jobs, want %d", when, body, n, jobs)
				}
			}
			for _, body := range append(slices.Clone(c.same), c.body) {
				again("while the job runs", body)
			}
			if c.otherPath {
				r.do(http.MethodPost, "/admin/backfill/"+uuid.NewString()+"/retry", "", api.IdempotencyKey, "a key: \"!~\"").
					want(t, 409, `the Idempotency-Key "a key: \"!~\"" was sent with another path or body`)
			} else {
				post(c.other).want(t, 409, `the Idempotency-Key "a key: \"!~\"" was sent with another path or body`)
			}
			again("after another request", c.body)
			r.endAll()
			again("when the job has ended", c.body)
			r.restart(testKey)
			again("in the next process", c.body)
			if c.wantStatus == http.StatusCreated && !strings.Contains(name, "collection") { // of which one is tracked by now
				if a := r.do(http.MethodPost, path, c.body, api.IdempotencyKey, "another"); a.status != first.status || a.body == first.body {
					t.Errorf("with another key: %d %s", a.status, a.body)
				}
			}
		})
	}
}

// endAll ends the jobs that are not final.
func (r *rig) endAll() {
	r.t.Helper()
	jobList, err := r.store.Jobs.Unfinished(r.t.Context())
	r.check(err)
	for _, j := range jobList {
		_, err := r.store.Jobs.MoveJob(r.t.Context(), j.ID, api.StatusCancelling)
		r.check(err)
		_, err = r.store.Jobs.FinishJob(r.t.Context(), j.Seq, func(jobs.Job) string { return "" })
		r.check(err)
	}
}

// restart has another server answer from the same store.
func (r *rig) restart(adminKey string) {
	r.t.Helper()
	cfg := r.server.cfg
	cfg.AdminKey = adminKey
	var err error
	r.server, err = New(cfg)
	r.check(err)
	r.http = httptest.NewServer(r.server.Handler())
	r.t.Cleanup(r.http.Close)
}

func TestOfConcurrentEqualRequestsOneMakesAJob(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	answers := make([]result, 20)
	var wg sync.WaitGroup
	for i := range answers {
		wg.Go(func() {
			answers[i] = r.do(http.MethodPost, "/admin/backfill", `{"collection":"com.example.note"}`, api.IdempotencyKey, "nervous")
		})
	}
	wg.Wait()
	for _, a := range answers {
		if a.status != http.StatusCreated || a.body != answers[0].body || a.header.Get("Location") != answers[0].header.Get("Location") {
			t.Errorf("%d %s to %s, another answer was %s", a.status, a.body, a.header.Get("Location"), answers[0].body)
		}
	}
	if n := r.jobsStored(); n != 1 {
		t.Errorf("%d jobs", n)
	}
	events, _, err := r.store.Admin.Events(t.Context(), 0, 100)
	if r.check(err); len(events) != 1 {
		t.Errorf("the audit log has %v", events)
	}
}

func TestMalformedIdempotencyKeyMakesNoJob(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.settle(alice, index.AccountActive, nil)
	for name, c := range map[string]struct{ header, text string }{
		"empty":         {"Idempotency-Key:\r\n", "has 0 characters, it must have 1 to 255"},
		"spaces":        {"Idempotency-Key:   \r\n", "has 0 characters"},
		"256":           {"Idempotency-Key: " + strings.Repeat("x", 256) + "\r\n", "has 256 characters, it must have 1 to 255"},
		"tab":           {"Idempotency-Key: a\tb\r\n", "not printable ASCII"},
		"not ASCII":     {"Idempotency-Key: schlüssel\r\n", "not printable ASCII"},
		"two":           {"Idempotency-Key: a\r\nIdempotency-Key: b\r\n", "more than one"},
		"twice":         {"Idempotency-Key: a\r\nidempotency-key: a\r\n", "more than one"},
		"one and empty": {"Idempotency-Key: a\r\nIdempotency-Key:\r\n", "more than one"},
	} {
		for _, path := range []string{"/admin/backfill", r.newest() + "/retry", "/admin/collections"} {
			a, _ := r.command(path, c.header+sized(`{"collection":"a.b.c"}`), sends(`{"collection":"a.b.c"}`))
			if path == r.newest()+"/retry" { // which takes no members
				a, _ = r.command(path, c.header, sends(""))
			}
			if a.want(t, 400, c.text); t.Failed() {
				t.Fatalf("%s: %s", path, name)
			}
		}
	}
	if n := r.jobsStored(); n != 1 {
		t.Errorf("%d jobs", n)
	}
	longest := strings.Repeat("~", 255)
	if a := r.do(http.MethodPost, "/admin/backfill", "", api.IdempotencyKey, longest); a.status != http.StatusCreated {
		t.Errorf("255 characters: %d %s", a.status, a.body)
	}
	// Where no job is made the header means nothing.
	a, _ := r.command(r.newest()+"/cancel", "Idempotency-Key: a\r\nIdempotency-Key:\r\n", sends(""))
	if a.status != http.StatusOK {
		t.Errorf("cancel: %d %s", a.status, a.body)
	}
}

// newest is the path of the job that was made last.
func (r *rig) newest() string {
	r.t.Helper()
	jobs, err := r.store.Jobs.List(r.t.Context())
	r.check(err)
	return pathOf(jobs[0])
}

func TestRefusedRequestIsNotKept(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	post := func(path, body string) result {
		t.Helper()
		return r.do(http.MethodPost, path, body, api.IdempotencyKey, "k")
	}
	post("/admin/backfill", `{"colection":"a.b.c"}`).want(t, 400, "unknown member")
	post("/admin/backfill?x=1", "").want(t, 400, "unknown parameter")
	post("/admin/backfill/"+uuid.NewString()+"/retry", "").want(t, 404, "there is no job")
	post("/admin/collections", `{}`).want(t, 400, "name the collection")
	r.jobs.fail = fmt.Errorf("create job: %w", store.ErrDiskFull)
	post("/admin/backfill", "").want(t, 507, "disk is full")
	r.jobs.fail = nil
	job := r.create("")
	post("/admin/backfill/"+job.String()+"/retry", "").want(t, 400, "only a job that has ended")
	r.endAll()
	if a := post("/admin/backfill/"+job.String()+"/retry", ""); a.status != http.StatusCreated {
		t.Errorf("when it can be retried: %d %s", a.status, a.body)
	}
	post("/admin/backfill", "").want(t, 409, "another path or body")
}

// TestIdempotencyKeysBelongToAKey has several API keys use the same Idempotency-Key.
func TestIdempotencyKeysBelongToAKey(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	made := map[string]string{} // answers
	post := func(key, body string) result {
		t.Helper()
		return r.do(http.MethodPost, "/admin/backfill", body, api.IdempotencyKey, "k", "Authorization", "Bearer "+key)
	}
	ids := map[string]uuid.UUID{}
	for _, name := range []string{"hv_one", "hv_two", "hv_reads"} {
		ids[name] = uuid.New()
		k := admin.APIKey{ID: ids[name], Name: name, Prefix: name, Permissions: []string{string(api.BackfillCreate)}, CreatedAt: time.Now()}
		if name == "hv_reads" {
			k.Permissions = []string{string(api.BackfillRead)}
		}
		r.check(r.store.Admin.PutAPIKey(t.Context(), name, k))
	}
	for i, name := range []string{testKey, "hv_one", "hv_two"} {
		a := post(name, "")
		if a.status != http.StatusCreated || made[a.body] != "" || r.jobsStored() != i+1 {
			t.Errorf("%s: %d %s, which is the answer to %q; %d jobs", name, a.status, a.body, made[a.body], r.jobsStored())
		}
		made[a.body] = name
		if b := post(name, ""); b.body != a.body {
			t.Errorf("%s again: %d %s", name, b.status, b.body)
		}
	}
	// The permission is looked at before the Idempotency-Key.
	post("hv_reads", "").want(t, 403, "backfill:create")
	post("hv_unknown", "").want(t, 401, "not known")
	r.check(r.store.Admin.RevokeAPIKey(t.Context(), ids["hv_one"], false))
	post("hv_one", "").want(t, 401, "was revoked")
	// A configured key that has taken the place of another.
	const another = "hv_another-key-of-these-tests-0123"
	r.restart(another)
	if a := post(another, ""); a.status != http.StatusCreated || made[a.body] != "" {
		t.Errorf("another configured key: %d %s", a.status, a.body)
	}
	r.restart(testKey)
	if a := post(testKey, ""); made[a.body] != testKey {
		t.Errorf("the configured key in another process: %d %s", a.status, a.body)
	}
	if n := r.jobsStored(); n != 4 {
		t.Errorf("%d jobs", n)
	}
}
