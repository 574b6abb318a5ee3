package control

import (
	"errors"
	"net/http"
	"net/url"
	"testing"

	"github.com/google/uuid"

	"appview/internal/api"
	"appview/server/answer"
	"appview/server/answer/answertest"
)

// FuzzEventCursor shows that any cursor of the audit log that is taken was made here.
func FuzzEventCursor(f *testing.F) {
	f.Add(eventCursor(7).String())
	f.Add("ZTEAMDc")
	f.Add("e1\x007")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := parseEventCursor(text)
		switch {
		case err != nil && !answertest.RefusedWell(err):
			t.Fatalf("%q is refused with %v", text, err)
		case err == nil && text != "" && c.String() != text:
			t.Fatalf("%q was not made here: %q", text, c)
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
			if !answertest.RefusedWell(err) {
				t.Fatalf("%q is refused with %v", text, err)
			}
			return
		}
		if again, err := parseEntry(entry); err != nil || again != entry {
			t.Fatalf("%q is taken as %q, and that as %q, %v", text, entry, again, err)
		}
	})
}

// FuzzJobFilter reads anything as the query of the list of jobs.
func FuzzJobFilter(f *testing.F) {
	for _, seed := range []string{"status=running&before=00000000-0000-0000-0000-000000000001", "limit=99999999999999999999", "a%zz", "limit=-1&status=", ";;&&=="} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r := &http.Request{Method: http.MethodGet, URL: &url.URL{Path: "/", RawQuery: text}}
		if _, err := parseJobFilter(r); err != nil && !answertest.RefusedWell(err) {
			t.Fatalf("%q as a filter of jobs is refused with %v", text, err)
		}
	})
}

// FuzzRepoCursor shows that any cursor that is taken is one that was made here.
func FuzzRepoCursor(f *testing.F) {
	id := uuid.MustParse("6f9619ff-8b86-4d11-b42d-00c04fc964ff")
	f.Add(repoCursor{job: id, after: "did:plc:alice7777777777777777777"}.String(), "")
	f.Add(repoCursor{job: id, state: api.RepoFailed, after: "did:plc:alice7777777777777777777"}.String(), "failed")
	f.Add("cjEAAAA", "")
	f.Fuzz(func(t *testing.T, text, state string) {
		c, err := parseRepoCursor(text, id, api.RepoState(state))
		if err != nil {
			var fail answer.Failure
			if !errors.As(err, &fail) || fail.Status != 400 {
				t.Fatalf("%q is refused with %v", text, err)
			}
			return
		}
		if text != "" && c.String() != text {
			t.Fatalf("%q was not made here: %q", text, c)
		}
	})
}
