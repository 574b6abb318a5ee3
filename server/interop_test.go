package server

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"appview/internal/sandbox/sandboxtest/interop"
)

// invalidParam is how the reference PDS begins to say that a parameter is not what it must
// be.
const invalidParam = "Invalid com.atproto.repo."

// TestInteropIdentifiers asks with every identifier of the fixtures, wherever one can be
// given: a valid one is taken for what it is, an invalid one is refused with a 400.
func TestInteropIdentifiers(t *testing.T) {
	t.Parallel()
	// Each says whether an answer refuses the identifier itself, and not what it names.
	admin := func(a result) bool { return a.status == http.StatusBadRequest }
	public := func(a result) bool { return strings.Contains(a.body, invalidParam) }
	noDID := func(a result) bool { return public(a) || strings.Contains(a.body, "repo must be a DID, not a handle") }
	for _, c := range []struct {
		fixture, path string
		refused       func(result) bool
	}{
		{"nsid", "/admin/records?collection=%", admin},
		{"nsid", "/api/records?collection=%", admin},
		{"nsid", "/admin/records/export?collection=%", admin},
		{"nsid", "/admin/backfill/status?collection=%", admin},
		{"nsid", "/admin/backfill/plan?collection=%", admin},
		{"nsid", listRecords + "?repo=" + string(alice) + "&collection=%", public},
		{"nsid", getRecord + "?repo=" + string(alice) + "&rkey=self&collection=%", public},
		{"did", "/admin/records?did=%", admin},
		{"did", "/api/records?did=%", admin},
		{"did", "/admin/records/export?did=%", admin},
		{"did", "/admin/backfill/status?did=%", admin},
		{"did", listRecords + "?collection=com.example.note&repo=%", noDID},
		{"did", getRecord + "?collection=com.example.note&rkey=self&repo=%", noDID},
		{"handle", listRecords + "?collection=com.example.note&repo=%", public},
		{"atidentifier", listRecords + "?collection=com.example.note&repo=%", public},
		{"atidentifier", getRecord + "?collection=com.example.note&rkey=self&repo=%", public},
		{"recordkey", getRecord + "?collection=com.example.note&repo=" + string(alice) + "&rkey=%", public},
		{"cid", getRecord + "?collection=com.example.note&rkey=self&repo=" + string(alice) + "&cid=%", public},
	} {
		t.Run(c.fixture+" "+c.path, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			for spelling, valid := range map[string]bool{"valid": true, "invalid": false} {
				for _, line := range interop.Lines(t, "syntax/"+c.fixture+"_syntax_"+spelling+".txt") {
					a := r.get(strings.Replace(c.path, "%", url.QueryEscape(line), 1))
					if c.refused(a) == valid && !interop.Disagrees(c.fixture, line) || a.status >= http.StatusInternalServerError {
						t.Errorf("%s %q: %d %s", spelling, line, a.status, a.body)
					}
				}
			}
		})
	}
}

// TestInteropIdentifiersInBodies creates jobs over the collections and the DIDs of the
// fixtures, and tracks the collections.
func TestInteropIdentifiersInBodies(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ fixture, path, member string }{
		{"nsid", "/admin/backfill", "collection"}, {"nsid", "/admin/collections", "collection"}, {"did", "/admin/backfill", "did"},
	} {
		t.Run(c.member+" "+c.path, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			for spelling, valid := range map[string]bool{"valid": true, "invalid": false} {
				for _, line := range interop.Lines(t, "syntax/"+c.fixture+"_syntax_"+spelling+".txt") {
					marshalled, err := json.Marshal(line)
					if err != nil {
						t.Fatal(err)
					}
					before := r.jobsStored()
					a := r.do(http.MethodPost, c.path, `{"`+c.member+`":`+string(marshalled)+`}`)
					made := a.status == http.StatusCreated || a.status == http.StatusOK
					if made != valid || !valid && (a.status != http.StatusBadRequest || r.jobsStored() != before) {
						t.Errorf("%s %q: %d %s", spelling, line, a.status, a.body)
					}
				}
			}
		})
	}
}
