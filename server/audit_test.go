package server

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/google/uuid"

	"appview/internal/api"
	"appview/server/answer"
	"appview/store/jobs"
)

func (r *rig) audit(query string) api.Events {
	r.t.Helper()
	var page api.Events
	r.get("/admin/events"+query).decode(r.t, &page)
	return page
}

// changes is an example of a request for every route that changes something: it
// returns what to ask for.
func changes() map[string]func(r *rig) (path, body string) {
	finished := func(r *rig) jobs.Job {
		job := r.mixed()
		r.end(job)
		return job
	}
	return map[string]func(r *rig) (path, body string){
		"POST /admin/backfill": func(*rig) (string, string) { return "/admin/backfill", `{"collection":"com.example.note"}` },
		"POST /admin/backfill/{id}/cancel": func(r *rig) (string, string) {
			return "/admin/backfill/" + r.create("").String() + "/cancel", ""
		},
		"POST /admin/backfill/{id}/pause": func(r *rig) (string, string) {
			return "/admin/backfill/" + r.create("").String() + "/pause", ""
		},
		"POST /admin/backfill/{id}/resume": func(r *rig) (string, string) {
			job, err := r.store.Jobs.MoveJob(r.t.Context(), r.create(""), api.StatusPausing)
			r.check(err)
			_, err = r.store.Jobs.FinishJob(r.t.Context(), job.Seq, func(jobs.Job) string { return "" })
			r.check(err)
			return pathOf(job) + "/resume", ""
		},
		"POST /admin/backfill/{id}/retry": func(r *rig) (string, string) { return pathOf(finished(r)) + "/retry", "" },
		"DELETE /admin/records":           func(*rig) (string, string) { return "/admin/records?collection=com.example.note", "" },
		"POST /admin/collections":         func(*rig) (string, string) { return "/admin/collections", `{"collection":"com.example.note"}` },
		"DELETE /admin/collections": func(r *rig) (string, string) {
			r.check(r.store.Collections.Track(r.t.Context(), note))
			return "/admin/collections?collection=com.example.note&records=keep", ""
		},
		"POST /admin/denylist": func(*rig) (string, string) { return "/admin/denylist", `{"entry":"pds.example"}` },
		"DELETE /admin/denylist": func(r *rig) (string, string) {
			r.check(r.store.Index.Deny(r.t.Context(), "pds.example", ""))
			return "/admin/denylist?entry=pds.example", ""
		},
		"POST /admin/api-keys": func(*rig) (string, string) { return "/admin/api-keys", `{"name":"a","permissions":["stats:read"]}` },
		"DELETE /admin/api-keys/{id}": func(r *rig) (string, string) {
			r.key("hv_another", nil, api.StatsRead)
			return "/admin/api-keys/" + r.keyNamed("hv_another").ID.String(), ""
		},
	}
}

// TestEveryChangeIsInTheAuditLog goes over the routes themselves: a new one that
// changes something and is not noted fails it.
func TestEveryChangeIsInTheAuditLog(t *testing.T) {
	t.Parallel()
	for _, rt := range newRig(t).server.routes() {
		name := rt.Method + " " + rt.Path
		if rt.Method == http.MethodGet || !strings.HasPrefix(rt.Path, answer.AdminSpace) {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			example := changes()[name]
			if example == nil {
				t.Fatal("there is no example of a request: write one, so that it is proved that it is noted")
			}
			r := newRig(t)
			path, body := example(r)
			bearer := r.bearerOf("hv_of-the-one-who-did-it", nil, api.AllPermissions)
			before := len(r.audit("").Events)
			if a := r.do(rt.Method, path, body, "Authorization", bearer); a.status/100 != 2 {
				t.Fatalf("got %d %s", a.status, a.body)
			}
			list := r.audit("").Events
			if len(list) <= before {
				t.Fatal("nothing was noted")
			}
			k := r.keyNamed("hv_of-the-one-who-did-it")
			for _, e := range list[:len(list)-before] {
				if e.Actor.Kind != api.ActorKey || *e.Actor.KeyID != k.ID.String() || *e.Actor.Prefix != "hv_of-th" || *e.Actor.Name != "test" {
					t.Errorf("noted as that of %+v", e.Actor)
				}
			}
		})
	}
}

func TestEventsAreAsTheyAreDescribed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	if a := r.get("/admin/events"); a.status != 200 || a.body != `{"events":[]}`+"\n" {
		t.Errorf("an empty log: %d %s", a.status, a.body)
	}
	r.deny(`{"entry":"pds.example","reason":"spam"}`)
	r.do(http.MethodDelete, "/admin/denylist?entry=other.example", "").want(t, 404, "not on the deny list") // is not noted
	exact := regexp.MustCompile(`^\{"events":\[\{"at":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ","actor":\{"kind":"environment_key","key_id":null,"prefix":null,"name":null\},` +
		`"action":"denylist:add","target":"pds.example","detail":"spam","outcome":"done"\}\]\}` + "\n$")
	if a := r.get("/admin/events"); !exact.MatchString(a.body) {
		t.Errorf("got %s", a.body)
	}
	for query, text := range map[string]string{
		"?limit=0": "limit must be a number from 1 to 1000", "?limit=1001": "limit must be", "?after=1": "unknown parameter",
		"?cursor=1": "was not made here", "?cursor=": "cursor is empty", "?cursor=" + base64.RawURLEncoding.EncodeToString([]byte("1\x00indexed\x00\x00\x001\x00\x00")): "was not made here",
	} {
		r.get("/admin/events"+query).want(t, 400, text)
	}
}

func TestEventsComeInPages(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for i := range 7 {
		r.deny(fmt.Sprintf(`{"entry":"pds%d.example"}`, i))
	}
	var got []string
	for cursor, pages := "", 0; ; pages++ {
		page := r.audit("?limit=3" + cursor)
		for _, e := range page.Events {
			got = append(got, *e.Target)
		}
		if page.Cursor == "" {
			if pages != 2 {
				t.Errorf("%d more pages", pages)
			}
			break
		}
		cursor = "&cursor=" + page.Cursor
	}
	if want := "pds6.example pds5.example pds4.example pds3.example pds2.example pds1.example pds0.example"; strings.Join(got, " ") != want {
		t.Errorf("got %v", got)
	}
}

func TestStartedJobIsNotedWithWhatItCovers(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.create(`{"dids":["` + string(bob) + `","` + string(carol) + `"]}`)
	e := r.audit("").Events[0]
	if e.Action != api.ActCreateJob || *e.Target != id.String() || *e.Detail != "all collections of 2 repos" {
		t.Errorf("event %+v", e)
	}
	r.check(errors.Join(r.store.Collections.Track(t.Context(), note), r.store.Collections.Track(t.Context(), "com.example.like")))
	r.create("{}")
	if e := r.audit("").Events[0]; *e.Detail != "2 tracked collections of every repo" {
		t.Errorf("event %+v", e)
	}
	if _, err := uuid.Parse(*e.Target); err != nil {
		t.Error(err)
	}
}
