package server

import (
	"testing"
	"time"

	"appview/internal/api"
	"appview/store/jobs"
)

// fixedHosts says of every host what the test has said of it.
type fixedHosts map[string]api.HostState

func (f fixedHosts) HostState(url string) (api.HostState, time.Time) {
	if state := f[url]; state != "" {
		return state, time.Date(2030, 1, 2, 3, 4, 5, 600, time.UTC)
	}
	return api.HostActive, time.Time{}
}

func TestHostsOfAJob(t *testing.T) {
	t.Parallel()
	known := fixedHosts{}
	r := newRig(t, func(c *Config) { c.Hosts = known })
	job := r.mixed()
	moved := jobs.Owed{DID: fred, Host: "https://slow.test"}
	const done = `{"pds_endpoint":"https://pds.test","total_repos":4,"completed_repos":3,"failed_repos":1,"total_records":2,"state":"done","paused_until":null}`
	slow := func(rest string) string {
		return `{"pds_endpoints":[` + done +
			`,{"pds_endpoint":"https://slow.test","total_repos":1,"completed_repos":0,"failed_repos":0,"total_records":0,` + rest + "}]}\n"
	}
	for state, rest := range map[api.HostState]string{
		"":             `"state":"active","paused_until":null`,
		api.HostParked: `"state":"parked","paused_until":"2030-01-02T03:04:05Z"`,
		api.HostDown:   `"state":"down","paused_until":"2030-01-02T03:04:05Z"`,
	} {
		known["https://pds.test"], known["https://slow.test"] = state, state
		if a := r.get(pathOf(job) + "/pds-summary"); a.status != 200 || a.body != slow(rest) {
			t.Errorf("got %d %s, want %s", a.status, a.body, slow(rest))
		}
	}
	// A host that all repos have left is no host of the job any more.
	r.wait(func(done func(error)) error {
		return r.store.Work.Rehost(t.Context(), job.Seq, moved.DID, moved.Host, "https://new.test", done)
	})
	var body api.Hosts
	r.get(pathOf(job)+"/pds-summary").decode(t, &body)
	if len(body.Hosts) != 2 || body.Hosts[1].Endpoint != "https://new.test" {
		t.Errorf("after the move: %+v", body)
	}
	r.end(job)
	r.get(pathOf(job)+"/pds-summary").decode(t, &body)
	if body.Hosts[0].State != api.HostDone || body.Hosts[1].State != api.HostStopped {
		t.Errorf("after the end: %+v", body)
	}
	r.get(pathOf(job)+"/pds-summary?limit=1").want(t, 400, "this route takes none")
}

func TestHostsOfAJobThatHasFoundNone(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	if a := r.get("/admin/backfill/" + r.create("").String() + "/pds-summary"); a.body != `{"pds_endpoints":[]}`+"\n" {
		t.Errorf("got %s", a.body)
	}
	job := r.mixed()
	var body api.Hosts
	r.get(pathOf(job)+"/pds-summary").decode(t, &body)
	if len(body.Hosts) != 2 || body.Hosts[1].State != api.HostActive {
		t.Errorf("without anybody to ask about hosts: %+v", body)
	}
}
