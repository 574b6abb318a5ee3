package network

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/network/hosttest"
	"appview/internal/network/outcome"
	"appview/internal/sandbox/sandboxtest/interop"
)

// documentOf is a DID document with one key.
func documentOf(did syntax.DID, suite, key string) []byte {
	return []byte(`{"id":"` + did.String() + `","verificationMethod":[{"id":"#atproto","type":"` + suite + `","controller":"` + did.String() +
		`","publicKeyMultibase":"` + key + `"}]}`)
}

// keyOf reads the key of a DID document.
func keyOf(t *testing.T, did syntax.DID, document []byte) atcrypto.PublicKey {
	t.Helper()
	doc, err := readDocument(document, did)
	if err != nil {
		t.Fatal(err)
	}
	key, err := doc.key.parse()
	if err != nil {
		t.Fatalf("%s: %v", document, err)
	}
	return key
}

func TestInteropSignatures(t *testing.T) {
	t.Parallel()
	var fixtures []struct {
		Comment, MessageBase64, DIDDocSuite, PublicKeyDID, PublicKeyMultibase, SignatureBase64 string
		ValidSignature                                                                         bool
	}
	interop.JSON(t, "crypto/signature-fixtures.json", &fixtures)
	for _, f := range fixtures {
		multikey := strings.TrimPrefix(f.PublicKeyDID, "did:key:")
		key := keyOf(t, alice, documentOf(alice, suiteMultikey, multikey))
		if older := keyOf(t, alice, documentOf(alice, f.DIDDocSuite, f.PublicKeyMultibase)); !older.Equal(key) || key.DIDKey() != f.PublicKeyDID {
			t.Errorf("%s: read as %s and %s", f.Comment, key.DIDKey(), older.DIDKey())
		}
		message, err := base64.RawStdEncoding.DecodeString(f.MessageBase64)
		if err != nil {
			t.Fatal(err)
		}
		sig, err := base64.RawStdEncoding.DecodeString(f.SignatureBase64)
		if err != nil {
			t.Fatal(err)
		}
		if err := key.HashAndVerify(message, sig); (err == nil) != f.ValidSignature {
			t.Errorf("%s: %v", f.Comment, err)
		}
	}
}

// TestInteropDocuments reads the DID documents of the fixtures, in the form of today and in
// the one before, which name one key.
func TestInteropDocuments(t *testing.T) {
	t.Parallel()
	const did = syntax.DID("did:plc:ewvi7nxzyoun6zhxrhs64oiz")
	today, before := interop.File(t, "identity/did_plc_doc.json"), interop.File(t, "identity/did_plc_doc_legacy.json")
	if a, b := keyOf(t, did, today), keyOf(t, did, before); !a.Equal(b) {
		t.Errorf("keys %s and %s", a.DIDKey(), b.DIDKey())
	}
	for name, document := range map[string][]byte{"today": today, "before": before} {
		c := newClient(t, Config{PLC: string(hosttest.Serve(t, hosttest.Says(http.StatusOK, "application/json", string(document))))})
		if ident, err := c.Lookup(t.Context(), did); err != nil || ident.PDS != "https://bsky.social" {
			t.Errorf("%s: %+v, %v", name, ident, err)
		}
	}
	const feed = syntax.DID("did:web:discover.bsky.social")
	doc, err := readDocument(interop.File(t, "identity/did_web_doc.json"), feed)
	if err != nil {
		t.Fatal(err)
	}
	_, err = newClient(t, Config{}).identity(feed, doc)
	wantReason(t, err, outcome.ReasonNoPDS)
}

// TestInteropDIDsOfARelay has a relay list every DID of the fixtures.
func TestInteropDIDsOfARelay(t *testing.T) {
	t.Parallel()
	valid, invalid := interop.Lines(t, "syntax/did_syntax_valid.txt"), interop.Lines(t, "syntax/did_syntax_invalid.txt")
	var repos []string
	for _, line := range slices.Concat(valid, invalid) {
		did, err := json.Marshal(line)
		if err != nil {
			t.Fatal(err)
		}
		repos = append(repos, `{"did":`+string(did)+`}`)
	}
	relay := hosttest.Serve(t, hosttest.Says(http.StatusOK, "application/json", `{"repos":[`+strings.Join(repos, ",")+`]}`))
	page, err := newClient(t, Config{Relay: string(relay)}).Repos(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, did := range page.DIDs {
		got = append(got, did.String())
	}
	if !slices.Equal(got, valid) || page.Invalid != len(invalid) {
		t.Errorf("listed %q, %d invalid, want %q", got, page.Invalid, valid)
	}
}
