package server

import (
	"net/http"
	"testing"

	"github.com/google/uuid"

	"appview/internal/api"
	"appview/store/index"
)

func TestRetryMakesAJobThatCarriesOn(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	job := r.mixed()
	r.do(http.MethodPost, pathOf(job)+"/retry", "").want(t, 400, "is running: only a job that has ended can be retried")
	r.end(job)
	a := r.do(http.MethodPost, pathOf(job)+"/retry", "")
	var ref api.JobRef
	a.decode(t, &ref)
	if a.status != http.StatusCreated || ref.Status != api.StatusRunning || a.header.Get("Location") != "/admin/backfill/"+ref.ID.String() {
		t.Errorf("got %d %v %s", a.status, a.header, a.body)
	}
	var d api.JobDetail
	r.get(a.header.Get("Location")).decode(t, &d)
	if d.RetryOf == nil || *d.RetryOf != job.ID.String() || d.Scope != "network" || d.Collection != nil {
		t.Errorf("the new job: %+v", d)
	}
	if r.get(pathOf(job)).decode(t, &d); d.RetryOf != nil {
		t.Errorf("the old job: %+v", d)
	}
}

func TestRetryIsRefusedWhereNothingIsLeft(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.settle(alice, index.AccountActive, nil)
	jobs, err := r.store.Jobs.List(t.Context())
	r.check(err)
	path := pathOf(jobs[0])
	r.do(http.MethodPost, path+"/retry", "").want(t, 400, "has read every repo: nothing is left to do")
	r.do(http.MethodPost, path+"/retry", `{"force":true}`).want(t, 400, `unknown member "force"`)
	r.do(http.MethodPost, path+"/retry?force=1", "").want(t, 400, `unknown parameter "force"`)
	for _, id := range []string{uuid.NewString(), "7"} {
		r.do(http.MethodPost, "/admin/backfill/"+id+"/retry", "").want(t, 404, "there is no job")
	}
	if n := r.jobsStored(); n != 1 {
		t.Errorf("%d jobs", n)
	}
}

func TestJobThatNamesReposHasTheScopeDIDs(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.create(`{"dids":["` + string(bob) + `","` + string(carol) + `"]}`)
	r.create("")
	var d api.JobDetail
	r.get("/admin/backfill/"+id.String()).decode(t, &d)
	if d.Scope != "dids" || d.DID != nil {
		t.Errorf("job: %+v", d)
	}
	if got := r.listed("?did=" + string(carol)); len(got) != 1 || got[0] != id.String() {
		t.Errorf("jobs that name carol: %v", got)
	}
	if got := r.listed("?did=" + string(alice)); len(got) != 0 {
		t.Errorf("jobs that name alice: %v", got)
	}
}
