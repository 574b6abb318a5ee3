package server

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/api"
	"appview/server/answer"
	"appview/store/index"
	"appview/store/jobs"
)

func TestReportHasALineForEachRepo(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	job := r.mixed()
	r.settleIn(job, "did:web:z.example", index.AccountActive, map[syntax.NSID][]index.Listed{note: texts(t, 1)},
		jobs.Verdict{Class: jobs.ClassDone, Reason: "changed_during_read"})
	want := map[string]string{
		string(alice):       `"class":"exact","reason":null,"detail":null,"attempts":0,"records":2`,
		string(bob):         `"class":"empty","reason":null,"detail":null,"attempts":0,"records":0`,
		string(carol):       `"class":"unavailable","reason":"deactivated","detail":null,"attempts":0,"records":0`,
		string(dora):        `"class":"failed","reason":"timeout","detail":"no answer in 30s","attempts":0,"records":0`,
		string(emil):        `"pds":null,"class":"pending","reason":null,"detail":null,"attempts":0,"records":0,"rejected_records":0,"rev":null}`,
		string(fred):        `"pds":"https://slow.test","class":"pending","reason":"http_5xx","detail":"answered 500","attempts":2,"records":0,"rejected_records":0,"rev":null}`,
		"did:web:z.example": `"class":"changed_during_read","reason":null,"detail":null,"attempts":0,"records":1`,
	}
	for _, when := range []string{"while it runs", "when it has ended"} {
		a := r.get(pathOf(job) + "/report")
		if a.status != http.StatusOK || a.header.Get("Content-Type") != "application/x-ndjson" {
			t.Fatalf("%s: %d %v %s", when, a.status, a.header, a.body)
		}
		left := maps.Clone(want)
		for line := range strings.Lines(a.body) {
			var l api.ReportLine
			result{body: line}.decode(t, &l)
			if !strings.Contains(line, left[string(l.DID)]) || left[string(l.DID)] == "" || !strings.HasSuffix(line, "}\n") {
				t.Errorf("%s: line %s, want %s", when, line, left[string(l.DID)])
			}
			delete(left, string(l.DID))
		}
		if len(left) != 0 {
			t.Errorf("%s: no line for %v", when, left)
		}
		if when == "while it runs" {
			r.end(job)
		}
	}
	var shown api.Job
	list := []api.Job{}
	r.get("/admin/backfill/status").decode(t, &list)
	if shown = list[0]; *shown.TotalRepos != int64(len(want)) {
		t.Errorf("total_repos is %d, the report has %d lines", *shown.TotalRepos, len(want))
	}
	if n := len(r.server.out.Bounds.Reports); n != 0 {
		t.Errorf("%d reports are still counted", n)
	}
}

// TestEndThatWasAssumedIsSaid has a repo settled whose end was assumed, and to be
// read anew when another shows that it must not be.
func TestEndThatWasAssumedIsSaid(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	job, err := r.store.Jobs.Job(t.Context(), r.create(""))
	r.check(err)
	exact := jobs.Verdict{Class: jobs.ClassDone, Reason: "exact"}
	r.settleWith(job, alice, func(s *jobs.Settlement) {
		s.Short.Assumed = []syntax.NSID{note}
		s.Verdict = exact
	})
	line := func(of string) {
		t.Helper()
		if a := r.get(pathOf(job) + "/report"); !strings.Contains(a.body, of) {
			t.Errorf("report %s, want %s", a.body, of)
		}
	}
	line(`"class":"exact","reason":null,"detail":"a page that was not full was taken for the last",`)
	hosts := func(want api.HostState) {
		t.Helper()
		var body api.Hosts
		r.get(pathOf(job)+"/pds-summary").decode(t, &body)
		if len(body.Hosts) != 1 || body.Hosts[0].State != want {
			t.Errorf("hosts: %+v, want the state %s", body, want)
		}
	}
	hosts(api.HostDone)
	r.settleWith(job, bob, func(s *jobs.Settlement) {
		s.Short.More = true
		s.Verdict = exact
	})
	_, _, err = r.store.Work.Reopen(t.Context(), job.Seq, "")
	r.check(err)
	line(`"class":"pending","reason":null,"detail":null,`)
	line(`"class":"exact","reason":null,"detail":null,`)
	hosts(api.HostActive)
	r.end(job)
	hosts(api.HostStopped)
}

func TestReportOfManyPagesIsCompressed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	job, err := r.store.Jobs.Job(t.Context(), r.create(""))
	r.check(err)
	dids := make([]syntax.DID, 3*1000)
	for i := range dids {
		dids[i] = syntax.DID(fmt.Sprintf("did:web:%05d.example.com", i))
	}
	_, err = r.store.Work.Discover(t.Context(), job.Seq, jobs.Discovery{Listing: "x", DIDs: dids})
	r.check(err)
	i := 0
	for line := range strings.Lines(r.get(pathOf(job) + "/report").body) { // net/http asks for gzip by itself
		var l api.ReportLine
		if err := json.Unmarshal([]byte(line), &l); err != nil || l.DID != dids[i] {
			t.Fatalf("line %d is %s, want %s", i, line, dids[i])
		}
		i++
	}
	if i != len(dids) {
		t.Errorf("%d lines, want %d", i, len(dids))
	}
	a := r.do(http.MethodGet, pathOf(job)+"/report", "", "Accept-Encoding", "gzip")
	if a.header.Get("Content-Encoding") != "gzip" || len(a.body) > 20*len(dids) {
		t.Errorf("%v: %d bytes", a.header, len(a.body))
	}
	a = r.do(http.MethodHead, pathOf(job)+"/report", "")
	if a.status != http.StatusOK || a.header.Get("Content-Type") != "application/x-ndjson" || a.body != "" {
		t.Errorf("HEAD: %d %v %q", a.status, a.header, a.body)
	}
}

func TestReportOfNothingIsEmpty(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	path := "/admin/backfill/" + r.create("").String() + "/report"
	if a := r.get(path); a.status != http.StatusOK || a.body != "" {
		t.Errorf("got %d %q", a.status, a.body)
	}
	r.get(path+"?state=done").want(t, 400, "this route takes none")
}

func TestOnlySomeReportsRunAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	path := "/admin/backfill/" + r.create("").String() + "/report"
	for range answer.MaxReports {
		r.server.out.Bounds.Reports <- struct{}{}
	}
	a := r.get(path)
	a.want(t, 429, "reports as may run at once (4) run already")
	if a.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	<-r.server.out.Bounds.Reports
	if a := r.get(path); a.status != http.StatusOK {
		t.Errorf("with room: %d %s", a.status, a.body)
	}
}
