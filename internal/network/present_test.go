package network

import (
	"net/http"
	"strings"
	"testing"

	"appview/internal/network/hosttest"
)

// TestRecordIsMissingOnlyInSoManyWords asks hosts for a record. Only a refusal that is
// about the record says that it is not there.
func TestRecordIsMissingOnlyInSoManyWords(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		status int
		body   string
		has    bool
		fails  bool
	}{
		"there":                     {200, `{"uri":"at://x/y/self","value":{}}`, true, false},
		"reference PDS":             {400, `{"error":"RecordNotFound","message":"Could not locate record: at://x/y/self"}`, false, false},
		"by 404":                    {404, `{"error":"RecordNotFound"}`, false, false},
		"older reference PDS":       {400, `{"error":"InvalidRequest","message":"Could not locate record: at://x/y/self"}`, false, false},
		"in words alone":            {400, `{"error":"InvalidRequest","message":"com.example.note self not found"}`, false, false},
		"a name for more than this": {400, `{"error":"NotFound","message":"record self not found"}`, false, false},
		"another record":            {400, `{"error":"InvalidRequest","message":"com.example.note other not found"}`, false, true},
		"the repo":                  {400, `{"error":"InvalidRequest","message":"Could not find repo: did:plc:x"}`, false, true},
		"the account":               {400, `{"error":"RepoDeactivated","message":"self is deactivated"}`, false, true},
		"the method":                {404, `{"error":"MethodNotImplemented","message":"Method Not Implemented"}`, false, true},
		"nothing":                   {404, "", false, true},
		"a proxy":                   {404, "<html>self not found</html>", false, true},
		"sick":                      {500, `{"error":"RecordNotFound","message":"Could not locate record: self"}`, false, true},
		"not allowed":               {403, `{"error":"RecordNotFound"}`, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host := hosttest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
				q := r.URL.Query()
				if r.URL.Path != "/xrpc/com.atproto.repo.getRecord" || q.Get("repo") != alice.String() || q.Get("collection") != status.String() || q.Get("rkey") != "self" {
					t.Errorf("asked %s", r.URL)
				}
				kind := "application/json"
				if strings.HasPrefix(c.body, "<") {
					kind = "text/html"
				}
				hosttest.Says(c.status, kind, c.body)(w, r)
			})
			has, err := newClient(t, Config{}).HasRecord(t.Context(), host, alice, status, "self")
			if has != c.has || (err != nil) != c.fails {
				t.Errorf("there: %t, %v; want %t, an error: %t", has, err, c.has, c.fails)
			}
		})
	}
}
