package network

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/network/hosttest"
	"appview/internal/network/outcome"
)

func TestRepoStatus(t *testing.T) {
	t.Parallel()
	const json = "application/json"
	did := alice.String()
	future := syntax.NewTID(time.Now().Add(25*time.Hour).UnixMicro(), 0).String()
	soon := syntax.NewTID(time.Now().Add(23*time.Hour).UnixMicro(), 0)
	inactive := func(status string) http.HandlerFunc {
		return hosttest.Says(200, json, `{"did":"`+did+`","active":false,"status":"`+status+`"}`)
	}
	active := func(rev string) http.HandlerFunc {
		return hosttest.Says(200, json, `{"did":"`+did+`","active":true,"rev":"`+rev+`"}`)
	}
	none := hosttest.Says(501, json, `{"error":"MethodNotImplemented","message":"Method Not Implemented"}`)
	commit := hosttest.Says(200, json, `{"cid":"bafyreigbtj4x7ip5legnfznufuopl4sg4knzc2cof6duas4b3q2fy6swua","rev":"`+testRev+`"}`)
	for name, c := range map[string]struct {
		status, commit http.HandlerFunc // commit nil: it must not be asked
		want           RepoStatus
		settled        outcome.Reason // of an inactive account
		err            outcome.Reason
	}{
		"active":                    {status: active(testRev), want: RepoStatus{Active: true, Rev: testRev}},
		"rev of tomorrow":           {status: active(soon.String()), want: RepoStatus{Active: true, Rev: soon}},
		"deactivated":               {status: inactive("deactivated"), want: RepoStatus{Status: "deactivated"}, settled: outcome.ReasonDeactivated},
		"taken down":                {status: inactive("takendown"), want: RepoStatus{Status: "takendown"}, settled: outcome.ReasonTakenDown},
		"suspended":                 {status: inactive("suspended"), want: RepoStatus{Status: "suspended"}, settled: outcome.ReasonSuspended},
		"deleted":                   {status: inactive("deleted"), want: RepoStatus{Status: "deleted"}, settled: outcome.ReasonDeleted},
		"throttled":                 {status: inactive("throttled"), want: RepoStatus{Status: "throttled"}, settled: outcome.ReasonBadAnswer},
		"takedown":                  {status: inactive("takedown"), want: RepoStatus{Status: "takedown"}, settled: outcome.ReasonTakenDown},
		"taken down, spelt":         {status: inactive("Taken_Down"), want: RepoStatus{Status: "Taken_Down"}, settled: outcome.ReasonTakenDown},
		"account_suspended":         {status: inactive("ACCOUNT_SUSPENDED"), want: RepoStatus{Status: "ACCOUNT_SUSPENDED"}, settled: outcome.ReasonSuspended},
		"Deleted":                   {status: inactive("Deleted"), want: RepoStatus{Status: "Deleted"}, settled: outcome.ReasonDeleted},
		"de-synchronised":           {status: inactive("de-synchronised"), want: RepoStatus{Status: "de-synchronised"}, settled: outcome.ReasonBadAnswer},
		"a word of its own":         {status: inactive("hibernating"), want: RepoStatus{Status: "hibernating"}, settled: outcome.ReasonDeactivated},
		"not found as a status":     {status: inactive("not_found"), want: RepoStatus{Status: "not_found"}, settled: outcome.ReasonDeactivated},
		"a status, and not active":  {status: hosttest.Says(200, json, `{"did":"`+did+`","status":"takedown"}`), want: RepoStatus{Status: "takedown"}, settled: outcome.ReasonTakenDown},
		"a status, and no more":     {status: hosttest.Says(200, json, `{"did":"`+did+`","status":"fine"}`), err: outcome.ReasonBadAnswer},
		"behind a mark, as a page":  {status: hosttest.Says(200, "text/html", "\ufeff"+`{"did":"`+did+`","active":true,"rev":"`+testRev+`"}`), want: RepoStatus{Active: true, Rev: testRev}},
		"refused as takedown":       {status: hosttest.Says(400, json, `{"error":"repo_taken_down"}`), want: RepoStatus{Status: "takendown"}, settled: outcome.ReasonTakenDown},
		"refused in capitals":       {status: hosttest.Says(404, json, `{"error":"ACCOUNT_DEACTIVATED"}`), want: RepoStatus{Status: "deactivated"}, settled: outcome.ReasonDeactivated},
		"refused in a 200":          {status: hosttest.Says(200, json, `{"error":"AccountSuspended","message":"x"}`), want: RepoStatus{Status: "suspended"}, settled: outcome.ReasonSuspended},
		"unknown in a 200":          {status: hosttest.Says(200, json, `{"error":"RepoNotFound"}`), err: outcome.ReasonNotFound},
		"unknown, spelt":            {status: hosttest.Says(404, "text/plain", "\ufeff"+`{"error":"repo-not-found"}`), err: outcome.ReasonNotFound},
		"no method, in a 200":       {status: hosttest.Says(200, json, `{"error":"MethodNotImplemented"}`), commit: commit, want: RepoStatus{Active: true, Rev: testRev}},
		"an error in a 200":         {status: hosttest.Says(200, json, `{"error":"InternalServerError"}`), err: outcome.ReasonBadAnswer},
		"no route, as a page":       {status: hosttest.Says(404, "text/html", "<pre>Cannot GET</pre>"), commit: commit, want: RepoStatus{Active: true, Rev: testRev}},
		"gone":                      {status: hosttest.Says(410, "", ""), commit: commit, want: RepoStatus{Active: true, Rev: testRev}},
		"off without a word":        {status: inactive(""), want: RepoStatus{}, settled: outcome.ReasonDeactivated},
		"refused as taken down":     {status: hosttest.Says(400, json, `{"error":"RepoTakendown"}`), want: RepoStatus{Status: "takendown"}, settled: outcome.ReasonTakenDown},
		"refused as deactivated":    {status: hosttest.Says(403, json, `{"error":"RepoDeactivated"}`), want: RepoStatus{Status: "deactivated"}, settled: outcome.ReasonDeactivated},
		"unknown":                   {status: hosttest.Says(400, json, `{"error":"RepoNotFound","message":"Could not find repo"}`), err: outcome.ReasonNotFound},
		"rev is no tid":             {status: active("yesterday"), err: outcome.ReasonBadRev},
		"rev of the future":         {status: active(future), err: outcome.ReasonBadRev},
		"another repo's":            {status: hosttest.Says(200, json, `{"did":"did:plc:x","active":true,"rev":"`+testRev+`"}`), err: outcome.ReasonBadAnswer},
		"says nothing":              {status: hosttest.Says(200, json, `{}`), err: outcome.ReasonBadAnswer},
		"active as text":            {status: hosttest.Says(200, json, `{"did":"`+did+`","active":"yes"}`), err: outcome.ReasonBadAnswer},
		"deep":                      {status: hosttest.Says(200, json, `{"a":`+repeat("[", 5000)+repeat("]", 5000)+`}`), err: outcome.ReasonBadAnswer},
		"broken":                    {status: hosttest.Says(500, json, `{}`), err: outcome.ReasonHTTP5xx},
		"no method":                 {status: none, commit: commit, want: RepoStatus{Active: true, Rev: testRev}},
		"no route":                  {status: hosttest.Says(404, "text/plain", "404 page not found"), commit: commit, want: RepoStatus{Active: true, Rev: testRev}},
		"no rev":                    {status: hosttest.Says(200, json, `{"did":"`+did+`","active":true}`), commit: commit, want: RepoStatus{Active: true, Rev: testRev}},
		"no method, deactivated":    {status: none, commit: hosttest.Says(400, json, `{"error":"RepoDeactivated"}`), want: RepoStatus{Status: "deactivated"}, settled: outcome.ReasonDeactivated},
		"no method, unknown":        {status: none, commit: hosttest.Says(400, json, `{"error":"InvalidRequest","message":"Could not find repo for DID did:plc:x"}`), err: outcome.ReasonNotFound},
		"neither method":            {status: none, commit: none, err: outcome.ReasonNoRev},
		"no rev anywhere":           {status: none, commit: hosttest.Says(200, json, `{"cid":"x"}`), err: outcome.ReasonNoRev},
		"no method, rev is no tid":  {status: none, commit: hosttest.Says(200, json, `{"rev":"x"}`), err: outcome.ReasonBadRev},
		"no method, then it breaks": {status: none, commit: hosttest.Says(500, json, `{}`), err: outcome.ReasonHTTP5xx},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := hosttest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
				switch {
				case r.URL.Query().Get("did") != did:
					t.Errorf("asked %s", r.URL)
				case strings.HasSuffix(r.URL.Path, methodRepoStatus):
					c.status(w, r)
				case c.commit != nil && strings.HasSuffix(r.URL.Path, methodLatestCommit):
					c.commit(w, r)
				default:
					t.Errorf("asked %s", r.URL)
				}
			})
			got, err := newClient(t, Config{}).RepoStatus(t.Context(), host, alice)
			if reasonOf(err) != string(c.err) || err == nil && (got != c.want || got.Reason() != c.settled) {
				t.Fatalf("got %+v (%s), %v, want %+v (%s), %s", got, got.Reason(), err, c.want, c.settled, c.err)
			}
		})
	}
}
