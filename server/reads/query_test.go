package reads

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"appview/server/answer"
	"appview/server/answer/answertest"
	"appview/store/index"
)

// FuzzQuery reads anything as the query of the lists of records.
func FuzzQuery(f *testing.F) {
	for _, seed := range []string{
		"collection=com.example.note&did=did:plc:aaaaaaaaaaaaaaaaaaaaaaaa&order=rkey&limit=7", "status=running&before=00000000-0000-0000-0000-000000000001",
		"limit=99999999999999999999", "order=indexed&order=rkey", "a%zz", "limit=-1&cursor=", "repo=x&rkey=y&reverse=maybe", ";;&&==",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r := &http.Request{Method: http.MethodGet, URL: &url.URL{Path: "/", RawQuery: text}}
		params, err := answer.Query(r, "collection", "did", "order", "limit", "cursor")
		if err == nil {
			var filter index.Filter
			if filter, err = answer.ParseFilter(params); err == nil {
				_, err = parseOrder(params["order"], filter)
			}
		}
		if err == nil {
			var n int
			if n, err = answer.LimitOf(params["limit"], 50, 100); err == nil && (n < 1 || n > 100) {
				t.Fatalf("%q gives a limit of %d", text, n)
			}
		}
		if err != nil && !answertest.RefusedWell(err) {
			t.Fatalf("%q as a filter of records is refused with %v", text, err)
		}
		p, err := parseXRPC(r, "com.atproto.repo.listRecords", "repo", "collection", "limit", "cursor", "reverse")
		if err == nil {
			_, err = p.required("repo")
		}
		if err != nil && strings.ContainsAny(err.Error(), "\r\n") {
			t.Fatalf("%q over XRPC is refused with %v", text, err)
		}
	})
}
