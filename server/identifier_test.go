package server

import (
	"net/http"
	"slices"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/api"
	"appview/store/index"
)

// spellings are names of com.example.note as users give them, and names that are others'
// however they are spelt.
func spellings() map[string]syntax.NSID {
	return map[string]syntax.NSID{
		"com.example.note": "com.example.note", "com.EXAMPLE.note": "com.example.note", "COM.example.note": "com.example.note",
		"Com.Example.note": "com.example.note", "COM.EXAMPLE.Note": "com.example.Note", "com.example.NOTE": "com.example.NOTE",
	}
}

// TestAuthorityOfACollectionIsLowered has clients name a collection in every place where
// one can be named. The authority is shown in lower case, and finds what is held under it;
// the name behind it keeps its case.
func TestAuthorityOfACollectionIsLowered(t *testing.T) {
	t.Parallel()
	for given, want := range spellings() {
		t.Run(given, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.settle(alice, index.AccountActive, map[syntax.NSID][]index.Listed{"com.example.note": texts(t, 2)})
			held := 0
			if want == "com.example.note" {
				held = 2
			}
			job := r.jobOf(r.create(`{"collection":"` + given + `"}`))
			if job.Request.Collection != want || !slices.Equal(job.Targets, []syntax.NSID{want}) {
				t.Errorf("the job is over %s, %s", job.Request.Collection, job.Targets)
			}
			var list []api.Job
			if r.get("/admin/backfill/status?collection="+given).decode(t, &list); len(list) != 1 || *list[0].Collection != want.String() {
				t.Errorf("listed: %+v", list)
			}
			var plan map[string]any
			if r.get("/admin/backfill/plan?collection="+given).decode(t, &plan); plan["collection"] != want.String() {
				t.Errorf("planned: %+v", plan)
			}
			for path, n := range map[string]int{
				"/api/records?collection=" + given:                                                                held,
				"/api/records?order=rkey&collection=" + given:                                                     held,
				"/admin/records?collection=" + given:                                                              held,
				"/xrpc/com.atproto.repo.listRecords?repo=" + alice.String() + "&collection=" + given:              held,
				"/xrpc/com.atproto.repo.listRecords?reverse=true&repo=" + alice.String() + "&collection=" + given: held,
			} {
				var page map[string]any
				r.get(path).decode(t, &page)
				if list, is := page["records"].([]any); !is || len(list) != n {
					t.Errorf("%s: %v, want %d records", path, page, n)
				}
			}
			if n := len(r.export("?collection=" + given)); n != held {
				t.Errorf("%d records exported, want %d", n, held)
			}
			if a := r.get("/xrpc/com.atproto.repo.getRecord?rkey=key0001&repo=" + alice.String() + "&collection=" + given); (a.status == http.StatusOK) != (held > 0) {
				t.Errorf("getRecord: %d %s", a.status, a.body)
			}
			a := r.do(http.MethodDelete, "/admin/records?collection="+given, "")
			var deleted struct{ Deleted int }
			if a.decode(t, &deleted); deleted.Deleted != held {
				t.Errorf("deleted: %d %s", a.status, a.body)
			}
		})
	}
}

func TestTrackedCollectionsAreLowered(t *testing.T) {
	t.Parallel()
	for given, want := range spellings() {
		r := newRig(t)
		var added api.Added
		if r.do(http.MethodPost, "/admin/collections", `{"collection":"`+given+`"}`).decode(t, &added); added.Collection != want {
			t.Errorf("%s: added as %s", given, added.Collection)
		}
		if list := r.collections(); len(list) != 1 || list[0].Collection != want {
			t.Errorf("%s: tracked %+v", given, list)
		}
		// It is the same collection, however it is spelt.
		if a := r.do(http.MethodPost, "/admin/collections", `{"collection":"`+want.String()+`"}`); a.status != http.StatusOK {
			t.Errorf("%s: added again: %d %s", given, a.status, a.body)
		}
		r.complete(r.jobOf(added.Job.ID), map[syntax.DID][]index.Listed{alice: texts(t, 1)})
		if age := r.get("/api/records?collection=" + given).header.Get(api.SyncedAt); age == "" {
			t.Errorf("%s: no word of how old it is", given)
		}
		a := r.do(http.MethodDelete, "/admin/collections?records=delete&collection="+given, "")
		if a.status != http.StatusOK || len(r.collections()) != 0 || len(r.export("")) != 0 {
			t.Errorf("%s: removed: %d %s", given, a.status, a.body)
		}
	}
}
