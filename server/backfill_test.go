package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/google/uuid"

	"appview/internal/api"
	"appview/server/control"
	"appview/store"
	"appview/store/index"
	"appview/store/jobs"
)

func TestCreateAnswersWithIDAndRunning(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, body := range []string{
		"", "  \n", "{}", ` { } `, `{"collection":null}`, `{"collection":null,"did":null}`,
		`{"collection":"xyz.statusphere.status"}`, `{"did":"did:plc:alice7777777777777777777"}`,
		`{"did":"did:web:carol.example.com","collection":"com.example.note"}`,
		`{"collection":"xyz.statusphere.status"}`,
	} {
		t.Run(body, func(t *testing.T) {
			t.Parallel()
			a := r.do(http.MethodPost, "/admin/backfill", body)
			if a.status != http.StatusCreated {
				t.Fatalf("got %d %s", a.status, a.body)
			}
			exact := regexp.MustCompile(`^\{"id":"([0-9a-f-]{36})","status":"running"\}\n$`).FindStringSubmatch(a.body)
			if exact == nil {
				t.Fatalf("body %s", a.body)
			}
			if got, want := a.header.Get("Location"), "/admin/backfill/"+exact[1]; got != want {
				t.Errorf("Location %q, want %q", got, want)
			}
			if got := a.header.Get("Content-Type"); got != "application/json" {
				t.Errorf("Content-Type %q", got)
			}
			if got := r.get(a.header.Get("Location")); got.status != http.StatusOK {
				t.Errorf("the job answers %d", got.status)
			}
		})
	}
}

func TestCreateHandsOnWhatWasAsked(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.create(`{"collection":"xyz.statusphere.status","did":"did:plc:alice7777777777777777777"}`)
	r.create(`{"dids":["did:plc:bob777777777777777777777","did:web:carol.example.com","did:plc:bob777777777777777777777"],"did":null}`)
	r.create(`{"dids":null,"collection":"xyz.statusphere.status"}`)
	many := make([]string, control.MaxDIDs)
	for i := range many {
		many[i] = fmt.Sprintf("%q", fmt.Sprintf("did:web:%d.example.com", i))
	}
	r.create(`{"dids":[` + strings.Join(many, ",") + `]}`)
	if n := len(r.jobs.created[3].DIDs); n != control.MaxDIDs {
		t.Errorf("%d of %d DIDs were handed on", n, control.MaxDIDs)
	}
	r.jobs.created = r.jobs.created[:3]
	want := []jobs.Request{{Collection: status, DID: alice}, {DIDs: []syntax.DID{bob, carol}}, {Collection: status}}
	if !reflect.DeepEqual(r.jobs.created, want) {
		t.Errorf("created %v, want %v", r.jobs.created, want)
	}
}

func TestBadRequestsCreateNoJob(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	long := strings.Repeat("a.", 157) + "abcd" // 318 characters
	for name, c := range map[string]struct {
		body   string
		status int
		text   string
	}{
		"bad JSON":               {`{"collection":`, 400, "not valid JSON: it ends too early"},
		"no JSON at all":         {`collection=xyz.statusphere.status`, 400, "not valid JSON: invalid character 'c'"},
		"array":                  {`["xyz.statusphere.status"]`, 400, "must be a JSON object, it is an array"},
		"string":                 {`"xyz.statusphere.status"`, 400, "must be a JSON object, it is a string"},
		"null":                   {`null`, 400, "must be a JSON object, it is null"},
		"number":                 {`1`, 400, "must be a JSON object, it is a number"},
		"boolean":                {`true`, 400, "must be a JSON object, it is a boolean"},
		"number as collection":   {`{"collection":1}`, 400, "collection must be a string, it is a number"},
		"array as collection":    {`{"collection":["a.b.c"]}`, 400, "collection must be a string, it is an array"},
		"object as did":          {`{"did":{}}`, 400, "did must be a string, it is an object"},
		"false as did":           {`{"did":false}`, 400, "did must be a string, it is a boolean"},
		"empty collection":       {`{"collection":""}`, 400, "collection is an empty string"},
		"empty did":              {`{"did":""}`, 400, "did is an empty string"},
		"unknown member":         {`{"colection":"xyz.statusphere.status"}`, 400, `unknown member "colection": the body may have collection, did, dids`},
		"unknown null member":    {`{"colection":null}`, 400, `unknown member "colection"`},
		"member of a later time": {`{"handles":["alice.example.com"]}`, 400, `unknown member "handles"`},
		"string as dids":         {`{"dids":"did:web:a.example"}`, 400, "dids must be a list of strings, it is a string"},
		"no dids":                {`{"dids":[]}`, 400, "dids is an empty list"},
		"number among dids":      {`{"dids":["did:web:a.example",1]}`, 400, "dids[1] must be a string, it is a number"},
		"null among dids":        {`{"dids":[null]}`, 400, "dids[0] must be a string, it is null"},
		"empty one of dids":      {`{"dids":["did:web:a.example",""]}`, 400, "dids[1] is an empty string"},
		"one bad of dids":        {`{"dids":["did:web:a.example","alice.example.com"]}`, 400, `did "alice.example.com" is no valid DID: it must begin with did:`},
		"all bad of dids":        {`{"dids":["did:plc:","x"]}`, 400, `did "did:plc:" is no valid DID: nothing follows its method; did "x" is no valid DID`},
		"collection and dids":    {`{"dids":["x"],"collection":"y"}`, 400, `as in com.example.thing; did "x" is no valid DID`},
		"did and dids":           {`{"did":"did:web:a.example","dids":["did:web:b.example"]}`, 400, "did and dids were both given"},
		"dids twice":             {`{"dids":["did:web:a.example"],"dids":["did:web:b.example"]}`, 400, "dids is given twice"},
		"501 dids":               {`{"dids":[` + strings.Repeat(`"did:web:a.example",`, 500) + `"did:web:b.example"]}`, 400, "dids names 501 repos, at most 500"},
		"other letter case":      {`{"Collection":"xyz.statusphere.status"}`, 400, `unknown member "Collection": write collection`},
		"duplicate member":       {`{"collection":"xyz.statusphere.status","collection":"com.example.note"}`, 400, "collection is given twice"},
		"duplicate null":         {`{"collection":null,"collection":"com.example.note"}`, 400, "collection is given twice"},
		"duplicate escaped":      {`{"did":"did:web:a.b","\u0064id":"did:web:a.b"}`, 400, "did is given twice"},
		"two objects":            {`{} {"collection":"xyz.statusphere.status"}`, 400, "something follows it"},
		"rubbish behind":         {`{"collection":"xyz.statusphere.status"}x`, 400, "something follows it"},
		"not UTF-8":              {"{\"collection\":\"a.b.c\xff\"}", 400, "not UTF-8"},
		"two segments":           {`{"collection":"statusphere.status"}`, 400, "no valid NSID: it needs at least three segments"},
		"318 characters":         {`{"collection":"` + long + `"}`, 400, "no valid NSID: it has 318 characters, at most 317"},
		"trailing dot":           {`{"collection":"xyz.statusphere.status."}`, 400, "no valid NSID: a segment is empty"},
		"wildcard":               {`{"collection":"xyz.statusphere.*"}`, 400, "no valid NSID: it must be letters"},
		"space":                  {`{"collection":" xyz.statusphere.status"}`, 400, "no valid NSID: it must be letters"},
		"digit in the name":      {`{"collection":"xyz.statusphere.1status"}`, 400, "no valid NSID: it must be letters"},
		"upper-case method":      {`{"did":"did:PLC:alice7777777777777777777"}`, 400, "no valid DID: its method must be in lower case"},
		"bad characters":         {`{"did":"did:plc:alice/777"}`, 400, "no valid DID: it must be did:"},
		"handle":                 {`{"did":"alice.example.com"}`, 400, "no valid DID: it must begin with did:"},
		"no identifier":          {`{"did":"did:plc:"}`, 400, "no valid DID: nothing follows its method"},
		"long DID":               {`{"did":"did:web:` + strings.Repeat("a", 2050) + `"}`, 400, "no valid DID: it has 2058 characters"},
		"both bad":               {`{"did":"x","collection":"y"}`, 400, "no valid NSID: it needs at least three segments, as in com.example.thing; did"},
		"65 KiB":                 {`{"collection":"` + strings.Repeat("a", 65<<10) + `"}`, 413, "more than 65536 bytes"},
		"65 KiB of space":        {strings.Repeat(" ", 65<<10), 413, "more than 65536 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r.do(http.MethodPost, "/admin/backfill", c.body).want(t, c.status, c.text)
			if n := r.jobsStored(); n != 0 || len(r.jobs.created) != 0 {
				t.Errorf("%d jobs were created", n)
			}
		})
	}
}

func TestCreateRefusesParametersOutsideTheBody(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.do(http.MethodPost, "/admin/backfill?collection=xyz.statusphere.status", "").want(t, 400, "the request goes in the body")
	if n := r.jobsStored(); n != 0 {
		t.Errorf("%d jobs were created", n)
	}
}

func TestBodyOf64KiBIsRead(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	body := `{"collection":"xyz.statusphere.status"}`
	a := r.do(http.MethodPost, "/admin/backfill", body+strings.Repeat(" ", 64<<10-len(body)))
	if a.status != http.StatusCreated {
		t.Errorf("got %d %s", a.status, a.body)
	}
}

func TestCancelIsTwoPhase(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.create("")
	path := "/admin/backfill/" + id.String()
	a := r.do(http.MethodPost, path+"/cancel", "")
	if want := `{"id":"` + id.String() + `","status":"cancelling"}` + "\n"; a.status != 200 || a.body != want {
		t.Errorf("got %d %s, want 200 %s", a.status, a.body, want)
	}
	var d api.JobDetail
	r.get(path).decode(t, &d)
	if d.Status != api.StatusCancelling {
		t.Errorf("status %s", d.Status)
	}
	r.do(http.MethodPost, path+"/cancel", "").want(t, 400, "is cancelling: only a running, pausing or paused job can be cancelled")

	job, err := r.store.Jobs.Job(t.Context(), id)
	r.check(err)
	_, err = r.store.Jobs.FinishJob(t.Context(), job.Seq, func(jobs.Job) string { return "" })
	r.check(err)
	r.do(http.MethodPost, path+"/cancel", "").want(t, 400, "is cancelled: only a running, pausing or paused job can be cancelled")
	r.get(path).decode(t, &d)
	if d.Status != api.StatusCancelled || d.Stage != api.StageCancelled || d.Error == nil || *d.Error != "cancelled by request" || d.CompletedAt == nil {
		t.Errorf("cancelled job: %+v", d)
	}
}

func TestPauseIsTwoPhaseAndResumeGoesOn(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.create("")
	path := "/admin/backfill/" + id.String()
	ask := func(what, status string) {
		t.Helper()
		a := r.do(http.MethodPost, path+"/"+what, "")
		if want := `{"id":"` + id.String() + `","status":"` + status + `"}` + "\n"; a.status != 200 || a.body != want {
			t.Errorf("%s: got %d %s, want 200 %s", what, a.status, a.body, want)
		}
	}
	stopped := func() {
		t.Helper()
		job, err := r.store.Jobs.Job(t.Context(), id)
		r.check(err)
		_, err = r.store.Jobs.FinishJob(t.Context(), job.Seq, func(jobs.Job) string { return "" })
		r.check(err)
	}
	r.do(http.MethodPost, path+"/resume", "").want(t, 400, "is running: only a paused job can be resumed")
	ask("pause", "pausing")
	r.do(http.MethodPost, path+"/pause", "").want(t, 400, "is pausing: only a running job can be paused")
	r.do(http.MethodPost, path+"/resume", "").want(t, 400, "is pausing: only a paused job can be resumed")
	stopped()
	r.do(http.MethodPost, path+"/pause", "").want(t, 400, "is paused: only a running job can be paused")
	r.do(http.MethodPost, path+"/retry", "").want(t, 400, "is paused: only a job that has ended can be retried")
	var list []api.Job
	r.get("/admin/backfill/status?status=paused").decode(t, &list)
	if len(list) != 1 || list[0].Status != api.StatusPaused || list[0].Stage != api.StagePending || list[0].CompletedAt != nil || list[0].Error != nil {
		t.Errorf("paused: %+v", list)
	}
	ask("resume", "running")
	ask("pause", "pausing")
	ask("cancel", "cancelling")
	r.do(http.MethodPost, path+"/pause", "").want(t, 400, "is cancelling: only a running job can be paused")
	stopped()
	r.do(http.MethodPost, path+"/resume", "").want(t, 400, "is cancelled: only a paused job can be resumed")
	for _, what := range []string{"pause", "resume"} {
		r.do(http.MethodPost, "/admin/backfill/"+uuid.NewString()+"/"+what, "").want(t, 404, "there is no job")
		r.do(http.MethodPost, path+"/"+what+"?force=1", "").want(t, 400, `unknown parameter "force"`)
		r.do(http.MethodGet, path+"/"+what, "").want(t, 405, "use POST")
	}
}

func TestCancelOfACompletedJobIsRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.settle(alice, index.AccountActive, nil)
	jobs, err := r.store.Jobs.List(t.Context())
	r.check(err)
	r.do(http.MethodPost, "/admin/backfill/"+jobs[0].ID.String()+"/cancel", "").want(t, 400, "is completed: only a running, pausing or paused job")
}

func TestCancelOfNoJobIsNotFound(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.create("")
	unknown := uuid.NewString()
	for _, id := range []string{unknown, "7", "status", strings.ReplaceAll(unknown, "-", ""), "{" + unknown + "}", "urn:uuid:" + unknown, "x" + unknown[1:]} {
		r.do(http.MethodPost, "/admin/backfill/"+id+"/cancel", "").want(t, 404, "there is no job")
		if id != "status" {
			r.get("/admin/backfill/"+id).want(t, 404, "there is no job")
		}
	}
	r.do(http.MethodPost, "/admin/backfill/7/cancel", "").want(t, 404, "a job's id is a UUID")
}

func TestCancelTakesNoParameters(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	path := "/admin/backfill/" + r.create("").String() + "/cancel"
	r.do(http.MethodPost, path+"?force=1", "").want(t, 400, `unknown parameter "force"`)
}

func TestOfConcurrentCancelsOneSucceeds(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	path := "/admin/backfill/" + r.create("").String() + "/cancel"
	statuses := make([]int, 8)
	var wg sync.WaitGroup
	for i := range statuses {
		wg.Go(func() { statuses[i] = r.do(http.MethodPost, path, "").status })
	}
	wg.Wait()
	slices.Sort(statuses)
	if want := []int{200, 400, 400, 400, 400, 400, 400, 400}; !slices.Equal(statuses, want) {
		t.Errorf("got %v, want %v", statuses, want)
	}
}

// twelve are the members of the list, in the order of the contract.
var twelve = []string{
	"id", "collection", "did", "status", "stage", "total_repos", "processed_repos", "total_records", "error",
	"started_at", "completed_at", "created_at",
}

func TestStatusIsABareArrayOfExactlyTwelveMembers(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	if a := r.get("/admin/backfill/status"); a.status != 200 || a.body != "[]\n" {
		t.Errorf("without jobs: %d %s", a.status, a.body)
	}
	r.create("")
	r.settle(alice, index.AccountActive, nil)
	a := r.get("/admin/backfill/status")
	var list []map[string]any
	a.decode(t, &list)
	if len(list) != 2 {
		t.Fatalf("%d jobs", len(list))
	}
	for _, job := range list {
		if got := slices.Sorted(maps.Keys(job)); !slices.Equal(got, slices.Sorted(slices.Values(twelve))) {
			t.Errorf("members %v", got)
		}
	}
	last := 0
	for _, name := range twelve { // and in that order, which people read
		i := strings.Index(a.body, `"`+name+`":`)
		if i < last {
			t.Errorf("%s is out of order in %s", name, a.body)
		}
		last = i
	}
}

func TestStatusListsNewestFirst(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var want []string
	for range 12 {
		want = append([]string{r.create("").String()}, want...)
	}
	if got := r.listed(""); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// listed are the ids of the jobs that the list shows.
func (r *rig) listed(query string) []string {
	r.t.Helper()
	var list []api.Job
	r.get("/admin/backfill/status"+query).decode(r.t, &list)
	ids := make([]string, len(list))
	for i, j := range list {
		ids[i] = j.ID.String()
	}
	return ids
}

func TestMembersAreNullUntilTheyAreKnown(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	id := r.create(`{"collection":"com.example.note"}`)
	job, err := r.store.Jobs.Job(ctx, id)
	r.check(err)

	const queued = `"collection":"com.example.note","did":null,"status":"running","stage":"pending",` +
		`"total_repos":null,"processed_repos":null,"total_records":null,"error":null,"started_at":null,"completed_at":null`
	r.wantJob(id, queued)

	_, err = r.store.Jobs.StartJob(ctx, job.Seq)
	r.check(err)
	r.wantJob(id, `"stage":"discovering_repos","total_repos":null,"processed_repos":null,"total_records":null,"error":null,"started_at":"`)

	_, err = r.store.Work.Discover(ctx, job.Seq, jobs.Discovery{Listing: "com.example.note"})
	r.check(err)
	r.wantJob(id, `"stage":"discovering_repos","total_repos":0,"processed_repos":null,"total_records":null`)

	r.settleIn(job, alice, index.AccountActive, map[syntax.NSID][]index.Listed{note: {text(t, "a", "x"), text(t, "b", "y")}},
		jobs.Verdict{Class: jobs.ClassDone, Reason: "exact"})
	r.wantJob(id, `"total_repos":1,"processed_repos":1,"total_records":2`)

	r.check(r.store.Work.EndDiscovery(ctx, job.Seq, ""))
	_, err = r.store.Jobs.FinishJob(ctx, job.Seq, func(jobs.Job) string { return "1 of 1 repos could not be read: 1 timeout" })
	r.check(err)
	r.wantJob(id, `"status":"completed","stage":"completed","total_repos":1,"processed_repos":1,"total_records":2,`+
		`"error":"1 of 1 repos could not be read: 1 timeout","started_at":"`)
}

// wantJob fails unless the list's only job is written with the text in it.
func (r *rig) wantJob(id uuid.UUID, text string) {
	r.t.Helper()
	if a := r.get("/admin/backfill/status"); !strings.Contains(a.body, text) || !strings.HasPrefix(a.body, `[{"id":"`+id.String()) {
		r.t.Errorf("got %s, want %s", a.body, text)
	}
}

func TestCompletedJobHasNumbersEvenWhenItFoundNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.create("")
	job, err := r.store.Jobs.Job(t.Context(), id)
	r.check(err)
	_, err = r.store.Jobs.StartJob(t.Context(), job.Seq)
	r.check(err)
	r.check(r.store.Work.EndDiscovery(t.Context(), job.Seq, ""))
	_, err = r.store.Jobs.FinishJob(t.Context(), job.Seq, func(jobs.Job) string { return "" })
	r.check(err)
	r.wantJob(id, `"status":"completed","stage":"completed","total_repos":0,"processed_repos":0,"total_records":0,"error":null`)
}

func TestFailedJobSaysWhy(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.create("")
	job, err := r.store.Jobs.Job(t.Context(), id)
	r.check(err)
	r.check(r.store.Work.EndDiscovery(t.Context(), job.Seq, "relay https://relay.test: connection refused"))
	_, err = r.store.Jobs.FinishJob(t.Context(), job.Seq, func(jobs.Job) string { return "" })
	r.check(err)
	r.wantJob(id, `"status":"failed","stage":"failed","total_repos":null,"processed_repos":null,"total_records":null,`+
		`"error":"relay https://relay.test: connection refused"`)
}

func TestTimesAreUTCInWholeSeconds(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.settle(alice, index.AccountActive, nil)
	var list []api.Job
	r.get("/admin/backfill/status").decode(t, &list)
	form := regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$`)
	for _, at := range []string{list[0].CreatedAt, *list[0].StartedAt, *list[0].CompletedAt} {
		if !form.MatchString(at) {
			t.Errorf("time %q", at)
		}
	}
}

func TestDetailHasTheTwelveAndMore(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.create("")
	job, err := r.store.Jobs.Job(t.Context(), id)
	r.check(err)
	ctx := t.Context()
	_, err = r.store.Jobs.StartJob(ctx, job.Seq)
	r.check(err)
	r.settleIn(job, alice, index.AccountActive, map[syntax.NSID][]index.Listed{note: {text(t, "a", "x")}},
		jobs.Verdict{Class: jobs.ClassDone, Reason: "exact"})
	r.settleIn(job, bob, index.AccountActive, map[syntax.NSID][]index.Listed{note: nil}, jobs.Verdict{Class: jobs.ClassDone, Reason: "empty"})
	r.settleIn(job, carol, "deactivated", nil, jobs.Verdict{Class: jobs.ClassUnavailable, Reason: "deactivated"})
	_, err = r.store.Work.Discover(ctx, job.Seq, jobs.Discovery{Listing: "x", DIDs: []syntax.DID{"did:web:d.example", "did:web:e.example"}})
	r.check(err)

	var raw map[string]any
	r.get("/admin/backfill/"+id.String()).decode(t, &raw)
	for name, want := range map[string]any{
		"total_repos": 5.0, "processed_repos": 3.0, "total_records": 1.0, "resolved_repos": 3.0, "failed_repos": 0.0,
		"unavailable_repos": 1.0, "empty_repos": 1.0, "created_records": 1.0, "updated_records": 0.0, "deleted_records": 0.0,
		"unchanged_records": 0.0, "rejected_records": 0.0, "discovery_complete": false, "scope": "network", "targets": []any{}, "origin": "request", "retry_of": nil,
		"waiting": nil, "waiting_host": nil, "waiting_since": nil, "waiting_until": nil, "waiting_answer": nil, "records_per_second": 0.0, "repos_per_second": 0.0, "eta_seconds": nil,
		"reasons": map[string]any{"exact": 1.0, "empty": 1.0, "deactivated": 1.0},
	} {
		if got, there := raw[name]; !there || !reflect.DeepEqual(got, want) {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	if len(raw) != len(twelve)+23 {
		t.Errorf("%d members: %v", len(raw), raw)
	}

	r.check(r.store.Work.EndDiscovery(ctx, job.Seq, ""))
	r.jobs.mu.Lock()
	r.jobs.repos, r.jobs.records = 0.3333, 12.3456
	r.jobs.mu.Unlock()
	r.get("/admin/backfill/"+id.String()).decode(t, &raw)
	if raw["eta_seconds"] != 7.0 || raw["repos_per_second"] != 0.33 || raw["records_per_second"] != 12.35 || raw["discovery_complete"] != true {
		t.Errorf("after discovery: %v", raw)
	}
	r.jobs.mu.Lock()
	r.jobs.waiting = "network"
	r.jobs.mu.Unlock()
	r.get("/admin/backfill/"+id.String()).decode(t, &raw)
	if raw["eta_seconds"] != nil || raw["waiting"] != "network" {
		t.Errorf("waiting: %v", raw)
	}
	r.jobs.mu.Lock()
	r.jobs.waiting, r.jobs.waits = "relay", "HTTP 502"
	r.jobs.mu.Unlock()
	r.get("/admin/backfill/"+id.String()).decode(t, &raw)
	for name, want := range map[string]any{
		"waiting": "relay", "waiting_host": "https://relay.example", "waiting_since": "2026-01-02T03:04:05Z",
		"waiting_until": "2026-01-02T03:06:05Z", "waiting_answer": "HTTP 502", "eta_seconds": nil,
	} {
		if raw[name] != want {
			t.Errorf("%s is %v, want %v", name, raw[name], want)
		}
	}
}

func TestStatusIsFiltered(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	first := r.create(`{"collection":"com.example.note"}`).String()
	second := r.create(`{"did":"did:web:carol.example.com"}`).String()
	third := r.create(`{"collection":"com.example.note"}`).String()
	if a := r.do(http.MethodPost, "/admin/backfill/"+third+"/cancel", ""); a.status != 200 {
		t.Fatal(a.body)
	}
	for query, want := range map[string][]string{
		"?status=running":                      {second, first},
		"?status=cancelling":                   {third},
		"?status=failed":                       {},
		"?collection=com.example.note":         {third, first},
		"?did=did:web:carol.example.com":       {second},
		"?limit=2":                             {third, second},
		"?limit=2&before=" + third:             {second, first},
		"?before=" + first:                     {},
		"?status=running&limit=1":              {second},
		"?collection=com.example.other":        {},
		"?limit=1&collection=com.example.note": {third},
	} {
		if got := r.listed(query); !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", query, got, want)
		}
	}
	for query, text := range map[string]string{
		"?stat=running":                 `unknown parameter "stat": this route takes status,`,
		"?status=resting":               `status "resting" is none of [running`,
		"?status=":                      "status is empty",
		"?status=running&status=failed": "status is given twice",
		"?collection=note":              "no valid NSID",
		"?did=carol":                    "no valid DID",
		"?limit=0":                      "limit must be a number from 1",
		"?limit=-1":                     "limit must be a number from 1",
		"?limit=x":                      "limit must be a number from 1",
		"?before=7":                     "before must be the id of a job",
		"?before=" + uuid.NewString():   "before names no job",
		"?a=%zz":                        "the query cannot be read",
	} {
		r.get("/admin/backfill/status"+query).want(t, 400, text)
	}
}

func TestStoreErrorsHaveTheirStatus(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err    error
		status int
		text   string
	}{
		{fmt.Errorf("create job: %w: less than 256 MiB is free", store.ErrDiskFull), 507, "disk is full: less than 256 MiB"},
		{fmt.Errorf("create job: %w", store.ErrClosed), 503, "shutting down"},
		{fmt.Errorf("create job: %w", context.Canceled), 503, "shutting down"},
		{errors.New("commit: input/output error"), 500, "something went wrong inside appview"},
	} {
		t.Run(c.text, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.jobs.fail = c.err
			a := r.do(http.MethodPost, "/admin/backfill", "")
			a.want(t, c.status, c.text)
			if c.status != 500 {
				return
			}
			var e api.Error
			a.decode(t, &e)
			if strings.Contains(a.body, "input/output") || e.RequestID == "" || e.RequestID != a.header.Get("X-Request-Id") {
				t.Errorf("answer %s", a.body)
			}
			if log := r.logs.String(); !strings.Contains(log, e.RequestID) || !strings.Contains(log, "input/output error") {
				t.Errorf("the log does not hold the cause: %s", log)
			}
		})
	}
}

func TestPanicIsAnsweredWithoutItsCause(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.jobs.panics = true
	a := r.do(http.MethodPost, "/admin/backfill", "")
	a.want(t, 500, "something went wrong inside appview")
	var e api.Error
	if err := json.Unmarshal([]byte(a.body), &e); err != nil || e.RequestID == "" || strings.Contains(a.body, "secret") {
		t.Errorf("answer %s", a.body)
	}
	if log := r.logs.String(); !strings.Contains(log, "a secret cause") || !strings.Contains(log, e.RequestID) {
		t.Errorf("the log does not hold the cause: %s", log)
	}
}
