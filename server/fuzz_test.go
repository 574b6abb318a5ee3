package server

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"appview/store/index"
)

// refusedWell tells whether an error is an answer to the client, in one line.
func refusedWell(err error) bool {
	if fail, ok := errors.AsType[failure](err); ok {
		return fail.status >= 400 && fail.status < 500 && fail.text != "" && !strings.ContainsAny(fail.text, "\r\n")
	}
	return false
}

// FuzzEventCursor shows that any cursor of the audit log that is taken was made here.
func FuzzEventCursor(f *testing.F) {
	f.Add(eventCursor(7).String())
	f.Add("ZTEAMDc")
	f.Add("e1\x007")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := parseEventCursor(text)
		switch {
		case err != nil && !refusedWell(err):
			t.Fatalf("%q is refused with %v", text, err)
		case err == nil && text != "" && c.String() != text:
			t.Fatalf("%q was not made here: %q", text, c)
		}
	})
}

// FuzzQuery reads anything as the query of every list.
func FuzzQuery(f *testing.F) {
	for _, seed := range []string{
		"collection=com.example.note&did=did:plc:aaaaaaaaaaaaaaaaaaaaaaaa&order=rkey&limit=7", "status=running&before=00000000-0000-0000-0000-000000000001",
		"limit=99999999999999999999", "order=indexed&order=rkey", "a%zz", "limit=-1&cursor=", "repo=x&rkey=y&reverse=maybe", ";;&&==",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r := &http.Request{Method: http.MethodGet, URL: &url.URL{Path: "/", RawQuery: text}}
		if _, err := parseJobFilter(r); err != nil && !refusedWell(err) {
			t.Fatalf("%q as a filter of jobs is refused with %v", text, err)
		}
		params, err := query(r, "collection", "did", "order", "limit", "cursor")
		if err == nil {
			var filter index.Filter
			if filter, err = parseFilter(params); err == nil {
				_, err = parseOrder(params["order"], filter)
			}
		}
		if err == nil {
			var n int
			if n, err = limitOf(params["limit"], 50, 100); err == nil && (n < 1 || n > 100) {
				t.Fatalf("%q gives a limit of %d", text, n)
			}
		}
		if err != nil && !refusedWell(err) {
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

// FuzzEntry reads anything as an entry of the deny list: what is taken is taken
// again as itself.
func FuzzEntry(f *testing.F) {
	for _, seed := range []string{
		"did:plc:aaaaaaaaaaaaaaaaaaaaaaaa", "pds.example.com", "PDS.example.com.:443", "https://pds.example.com/", "127.0.0.1:80", "[::1]:8443", "::1", "a b", "did:", "*.example.com",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		entry, err := parseEntry(text)
		if err != nil {
			if !refusedWell(err) {
				t.Fatalf("%q is refused with %v", text, err)
			}
			return
		}
		if again, err := parseEntry(entry); err != nil || again != entry {
			t.Fatalf("%q is taken as %q, and that as %q, %v", text, entry, again, err)
		}
	})
}
