package network

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"appview/internal/record"
)

// guarded is a client that may ask public addresses only. It asks nobody.
func guarded(f *testing.F) *Client {
	f.Helper()
	c, err := New(Config{})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(c.Close)
	return c
}

// FuzzDocument reads anything as a DID document.
func FuzzDocument(f *testing.F) {
	did := alice.String()
	key := `{"id":"` + did + `#atproto","type":"Multikey","controller":"` + did + `","publicKeyMultibase":"` + testKey + `"}`
	f.Add([]byte(document(did, pdsService("#atproto_pds", "https://pds.example.com"), key)))
	f.Add([]byte(document(did, pdsService(did+"#atproto_pds", "https://127.0.0.1"), strings.Replace(key, "Multikey", "EcdsaSecp256k1VerificationKey2019", 1))))
	f.Add([]byte(`{"id":"` + did + `","verificationMethod":[{"id":"#atproto","type":"Multikey","publicKeyMultibase":"z"}],"alsoKnownAs":["at://",""]}`))
	f.Add([]byte(`{"id":"` + did + `","service":{"id":"#atproto_pds","type":["AtprotoPersonalDataServer"],"serviceEndpoint":[{},"https://pds.example.com"]},"verificationMethod":{"id":"#atproto","controller":[]}}`))
	c := guarded(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		doc, err := readDocument(body, alice)
		if err != nil {
			return
		}
		id, err := c.identity(alice, doc)
		if err == nil {
			if again, err := c.ParseHost(string(id.PDS)); err != nil || again != id.PDS {
				t.Fatalf("%q is read again as %q, %v", id.PDS, again, err)
			}
		} else if e, ok := errors.AsType[*Error](err); !ok || e.Reason.Retryable() {
			t.Fatalf("%q: %v", body, err)
		}
		_, _ = id.Key() // must only not panic
	})
}

// FuzzStatus reads anything as the status of a repo.
func FuzzStatus(f *testing.F) {
	for _, seed := range []string{
		`{"did":"did:plc:aaaaaaaaaaaaaaaaaaaaaaaa","active":true,"rev":"3kgk4qs6aa22a"}`, `{"did":"did:plc:aaaaaaaaaaaaaaaaaaaaaaaa","active":false,"status":"x\ny"}`,
		`{"did":"did:plc:aaaaaaaaaaaaaaaaaaaaaaaa","active":true,"rev":"zzzzzzzzzzzzz"}`, `{"active":null}`, `{"did":7}`,
	} {
		f.Add([]byte(seed))
	}
	c := guarded(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		var out statusAnswer
		if !record.IsShallow(body) || json.Unmarshal(body, &out) != nil {
			return
		}
		st, err := c.readStatus(t.Context(), "https://pds.example.com", alice, out)
		if err != nil {
			return
		}
		if st.Active != (st.Status == "" && st.Reason() == "") && st.Active {
			t.Fatalf("%q: %+v, reason %s", body, st, st.Reason())
		}
		if st.Rev != "" && st.Rev.Time().After(time.Now().Add(25*time.Hour)) || len(st.Status) > 200 || strings.ContainsAny(st.Status, "\r\n") {
			t.Fatalf("%q: %+v", body, st)
		}
	})
}

// FuzzPages checks that no page makes the readers panic, and what they make of it.
func FuzzPages(f *testing.F) {
	for _, seed := range []string{
		`{"records":[{"uri":"at://a/b/c","cid":"x","value":{"a":[1,-2.5e3,null,true,"\u00e9"]}}],"cursor":"c"}`,
		`{"repos":[{"did":"did:plc:abc"}],"cursor":null}`, `{"did":"did:plc:aaaaaaaaaaaaaaaaaaaaaaaa","collections":["a.b.c"]}`, `[[{"a":[{}]}]]`, `{"a":1,}`, "\"\xff\"",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		records, err := readRecords(body)
		if err == nil {
			for _, r := range records.Records {
				if r.Value != nil && !json.Valid(r.Value) {
					t.Fatalf("%q: value %q is no json", body, r.Value)
				}
			}
			if utf8.Valid(body) && !utf8.ValidString(records.Cursor) {
				t.Fatalf("%q: cursor %q", body, records.Cursor)
			}
		}
		if repos, err := readRepos(body); err == nil && !json.Valid(body) {
			t.Fatalf("%q read as %v", body, repos)
		}
		_, _ = readDescription(body, alice) // must only not panic
	})
}
