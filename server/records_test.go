package server

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"

	"appview/internal/api"
	"appview/internal/record"
	"appview/server/answer"
	"appview/store/index"
	"appview/store/storetest"
)

// texts makes n records with keys in order.
func texts(t *testing.T, n int) []index.Listed {
	t.Helper()
	list := make([]index.Listed, n)
	for i := range list {
		list[n-1-i] = text(t, fmt.Sprintf("key%04d", i), fmt.Sprintf("text %d", i))
	}
	return list
}

// pages follows the cursors and returns the URIs of each page.
func (r *rig) pages(path string) (list [][]string) {
	r.t.Helper()
	next := path
	for range 1000 {
		var p api.Records
		r.get(next).decode(r.t, &p)
		uris := make([]string, len(p.Records))
		for i, rec := range p.Records {
			uris[i] = rec.URI
		}
		list = append(list, uris)
		if p.Cursor == "" {
			return list
		}
		next = path + "&cursor=" + url.QueryEscape(p.Cursor)
	}
	r.t.Fatalf("%s has no end", path)
	return nil
}

func TestRecordsHaveTheirMembers(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	rec := verified(t, "3k2aaaaaaaaaa", `{"$type":"com.example.note","text":"<b>&\u2028</b>","n":[1,{"$link":"bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a"}]}`)
	r.settle(alice, index.AccountActive, map[syntax.NSID][]index.Listed{note: {rec}})
	for _, path := range []string{"/admin/records?collection=com.example.note", "/api/records?did=" + string(alice)} {
		a := r.get(path)
		var p api.Records
		a.decode(t, &p)
		if len(p.Records) != 1 || p.Cursor != "" {
			t.Fatalf("%s: %s", path, a.body)
		}
		got := p.Records[0]
		if got.URI != "at://"+string(alice)+"/com.example.note/3k2aaaaaaaaaa" || got.CID != rec.Body.CID.String() || got.DID != alice ||
			got.Collection != note || got.RKey != "3k2aaaaaaaaaa" || got.Rev != r.rev || got.Provenance != "listRecords" || got.IndexedAt == "" {
			t.Errorf("%s: %s", path, a.body)
		}
		if again, err := record.FromJSON(got.Value, got.CID); err != nil || !again.Verified {
			t.Errorf("the value does not prove its cid: %v, %s", err, got.Value)
		}
		if !strings.Contains(a.body, "<b>&") {
			t.Errorf("the value is escaped: %s", a.body)
		}
	}
}

func TestNewestRecordsComeFirstAcrossRepos(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var want []string
	for i, did := range []syntax.DID{carol, alice, bob} {
		rec := text(t, fmt.Sprintf("key%d", i), "x")
		r.settle(did, index.AccountActive, map[syntax.NSID][]index.Listed{note: {rec}, status: {rec}})
		want = append([]string{record.URI{DID: did, Collection: note, RKey: rec.RKey}.String()}, want...)
	}
	for _, path := range []string{"/admin/records?collection=com.example.note", "/api/records?order=indexed&collection=com.example.note"} {
		for limit := 1; limit <= 4; limit++ {
			got := slices.Concat(r.pages(fmt.Sprintf("%s&limit=%d", path, limit))...)
			if !slices.Equal(got, want) {
				t.Errorf("%s limit %d: %v, want %v", path, limit, got, want)
			}
		}
	}
}

func TestRepoRecordsComeByCollectionThenDescendingKey(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.settle(alice, index.AccountActive, map[syntax.NSID][]index.Listed{status: texts(t, 3), note: texts(t, 120), "app.bsky.graph.like": texts(t, 1)})
	r.settle(bob, index.AccountActive, map[syntax.NSID][]index.Listed{note: texts(t, 2)})
	var want []string
	for _, c := range []syntax.NSID{"app.bsky.graph.like", note, status} {
		n := map[syntax.NSID]int{"app.bsky.graph.like": 1, note: 120, status: 3}[c]
		for _, l := range texts(t, n) {
			want = append(want, record.URI{DID: alice, Collection: c, RKey: l.RKey}.String())
		}
	}
	for _, limit := range []int{1, 2, 7, 31, 50, 51, 100, 121, 123, 124, 125, 1000} {
		got := r.pages(fmt.Sprintf("/admin/records?did=%s&limit=%d", alice, limit))
		if !slices.Equal(slices.Concat(got...), want) {
			t.Errorf("limit %d: %v", limit, got)
		}
		if pages := (len(want) + limit - 1) / limit; len(got) != pages {
			t.Errorf("limit %d: %d pages, want %d", limit, len(got), pages)
		}
	}
	if got := slices.Concat(r.pages(fmt.Sprintf("/api/records?order=rkey&did=%s&collection=%s&limit=50", alice, note))...); !slices.Equal(got, want[1:121]) {
		t.Errorf("with a collection: %v", got)
	}
}

func TestPagesEndEarlyWhenRecordsAreLarge(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	r := newRig(t)
	var list []index.Listed
	for i := range 24 {
		list = append(list, text(t, fmt.Sprintf("k%02d", 23-i), strings.Repeat("x", 900<<10)))
	}
	r.settle(alice, index.AccountActive, map[syntax.NSID][]index.Listed{note: list[:12], status: list[12:]})
	for path, want := range map[string]int{"/admin/records?did=" + string(alice): 24, "/api/records?collection=com.example.note": 12} {
		if got := r.pages(path); len(slices.Concat(got...)) != want {
			t.Errorf("%s: %d pages of %d records", path, len(got), len(slices.Concat(got...)))
		}
	}
}

// TestPagesAreBoundedAsTheyArePrinted has records that take six times the room in JSON,
// fewer than are read in one transaction.
func TestPagesAreBoundedAsTheyArePrinted(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	r := newRig(t)
	list := make([]index.Listed, 12)
	for i := range list {
		list[i] = verified(t, fmt.Sprintf("k%02d", len(list)-1-i), `{"text":"`+strings.Repeat(`\u0001`, 300<<10)+`"}`)
	}
	r.settle(alice, index.AccountActive, map[syntax.NSID][]index.Listed{note: list[:6], status: list[6:]})
	ofRepo := "repo=" + string(alice) + "&collection=" + string(note)
	for path, want := range map[string]int{
		"/api/records?collection=" + string(note):            6,
		"/api/records?order=rkey&collection=" + string(note): 6,
		"/admin/records?limit=1000&did=" + string(alice):     12,
		listRecords + "?" + ofRepo:                           6,
	} {
		got, cursor := 0, ""
		for more := true; more; more = cursor != "" {
			a := r.get(path + cursor)
			var p struct {
				Records []json.RawMessage
				Cursor  string
			}
			r.check(json.Unmarshal([]byte(a.body), &p))
			if len(a.body) > answer.PageBytes+record.MaxJSON+1<<10 || len(p.Records) == 0 {
				t.Errorf("%s: a page of %d records, %d bytes %.100s", path, len(p.Records), len(a.body), a.body)
			}
			got += len(p.Records)
			if cursor = ""; p.Cursor != "" {
				cursor = "&cursor=" + p.Cursor
			}
		}
		if got != want {
			t.Errorf("%s: %d records", path, got)
		}
	}
}

func TestInactiveAccountsAreLeftOut(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.settle(alice, index.AccountActive, map[syntax.NSID][]index.Listed{note: texts(t, 2)})
	r.settle(bob, index.AccountActive, map[syntax.NSID][]index.Listed{note: texts(t, 2)})
	r.settle(bob, "deactivated", nil)
	for path, want := range map[string]int{
		"/admin/records?collection=com.example.note": 2,
		"/api/records?collection=com.example.note":   2,
		"/admin/records?did=" + string(bob):          0,
		"/admin/records?did=did:web:unknown.example": 0,
		"/admin/records?collection=a.b.unknown":      0,
	} {
		if got := slices.Concat(r.pages(path)...); len(got) != want {
			t.Errorf("%s: %v", path, got)
		}
	}
	if a := r.get("/admin/records?collection=a.b.unknown"); a.body != `{"records":[]}`+"\n" {
		t.Errorf("no records: %s", a.body)
	}
}

func TestRecordQueriesThatCannotBeAnswered(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.settle(alice, index.AccountActive, map[syntax.NSID][]index.Listed{note: texts(t, 3)})
	var p api.Records
	r.get("/admin/records?limit=1&collection=com.example.note").decode(t, &p)
	var ofRepo api.Records
	r.get("/admin/records?limit=1&did="+string(alice)).decode(t, &ofRepo)
	if p.Cursor == "" || ofRepo.Cursor == "" {
		t.Fatal("no cursors")
	}
	for query, text := range map[string]string{
		"":                 "name a collection, a did, or both",
		"?collection=note": "no valid NSID",
		"?did=note":        "no valid DID",
		"?order=rkey":      "name a collection, a did, or both",
		"?collection=com.example.note&order=repo":                    "neither indexed nor rkey",
		"?collection=com.example.note&order=rkey&cursor=" + p.Cursor: "belongs to another query",
		"?collection=com.example.note&order=age":                     "neither indexed nor rkey",
		"?did=" + string(alice) + "&order=indexed":                   "leave order out",
		"?collection=com.example.note&limit=1001":                    "limit must be a number from 1 to 1000",
		"?collection=com.example.note&limit=0":                       "limit must be a number from 1 to 1000",
		"?collection=com.example.note&sort=x":                        "unknown parameter",
		"?collection=com.example.note&cursor=!":                      "was not made here",
		"?collection=com.example.note&cursor=MQ":                     "was not made here",
		"?collection=com.example.other&cursor=" + p.Cursor:           "belongs to another query",
		"?did=" + string(alice) + "&cursor=" + p.Cursor:              "belongs to another query",
		"?collection=com.example.note&cursor=" + ofRepo.Cursor:       "belongs to another query",
		"?did=" + string(bob) + "&cursor=" + ofRepo.Cursor:           "belongs to another query",
	} {
		r.get("/admin/records"+query).want(t, 400, text)
	}
	r.get("/api/records?collection=com.example.note&limit=101").want(t, 400, "limit must be a number from 1 to 100")
}

func TestUnverifiedValueIsOneLine(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id, err := cid.Decode("bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a")
	r.check(err)
	odd := index.Listed{RKey: "odd", Body: record.Body{CID: id, Data: []byte("{\n  \"f\": 1.50,\n \"t\": \"<a>\"\n}")}}
	r.settle(alice, index.AccountActive, map[syntax.NSID][]index.Listed{note: {odd}})
	for _, path := range []string{"/admin/records?collection=com.example.note", "/admin/records/export", "/xrpc/com.atproto.repo.getRecord?repo=" + string(alice) + "&collection=com.example.note&rkey=odd"} {
		if a := r.get(path); strings.Count(a.body, "\n") != 1 || !strings.Contains(a.body, `"value":{"f":1.50,"t":"<a>"}`) {
			t.Errorf("%s: %q", path, a.body)
		}
	}
}
