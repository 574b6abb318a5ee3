package network

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/multiformats/go-multibase"

	"appview/internal/network/hosttest"
	"appview/internal/network/outcome"
)

// TestWhatIsNotOursInADocumentIsPassedOver has entries of every shape around the PDS and
// the key of an account.
func TestWhatIsNotOursInADocumentIsPassedOver(t *testing.T) {
	t.Parallel()
	did := alice.String()
	pds := pdsService("#atproto_pds", "https://pds.example.com")
	key := `{"id":"` + did + `#atproto","type":"Multikey","controller":"` + did + `","publicKeyMultibase":"` + testKey + `"}`
	odd := []string{
		`null`, `7`, `"text"`, `true`, `[]`, `{}`, `[{}]`, `-1.5e300`, `{"id":null}`, `{"id":{"a":[1]},"type":7}`, repeat("[", 5000) + repeat("]", 5000),
		`{"id":"#domains","type":"LinkedDomains","serviceEndpoint":{"origins":["https://example.com"]}}`,
		`{"id":"#inbox","type":["DIDCommMessaging","Inbox"],"serviceEndpoint":[{"uri":"https://example.com"},"https://example.com"]}`,
		`{"type":"AtprotoPersonalDataServer","serviceEndpoint":"https://no-id.example.com"}`,
		`{"id":"#atproto_pds","type":"LinkedDomains","serviceEndpoint":"https://another-type.example.com"}`,
		`{"id":"#ATPROTO_PDS","type":"AtprotoPersonalDataServer","serviceEndpoint":"https://another-case.example.com"}`,
		`{"id":"` + strings.ToUpper(did) + `#atproto_pds","type":"AtprotoPersonalDataServer","serviceEndpoint":"https://another-did.example.com"}`,
		`{"id":"#k","type":"JsonWebKey2020","controller":["` + did + `"],"publicKeyJwk":{"kty":"OKP"}}`,
		`{"id":"#k","controller":null,"publicKeyMultibase":{"z":1}}`,
		`{"id":"did:plc:bbbbbbbbbbbbbbbbbbbbbbbb#atproto","type":"Multikey","controller":"` + did + `","publicKeyMultibase":"zQ3shunBKsXixLxKtC5qeSG9E4J5RkGN57im31pcTzbNQnm5w"}`,
	}
	for i, entry := range odd {
		for name, doc := range map[string]string{
			"in front": fmt.Sprintf(`{"id":%q,"service":[%s,%s],"verificationMethod":[%[2]s,%[4]s]}`, did, entry, pds, key),
			"behind":   fmt.Sprintf(`{"id":%q,"service":[%s,%s],"verificationMethod":[%[4]s,%[3]s]}`, did, pds, entry, key),
			"around": fmt.Sprintf(`{"@context":%s,"controller":%[1]s,"alsoKnownAs":[%[1]s],"assertionMethod":%[1]s,"error":%[1]s,"service":[%[2]s],"verificationMethod":[%[3]s],"id":%[4]q}`,
				entry, pds, key, did),
			"alone": fmt.Sprintf(`{"alsoKnownAs":%s,"service":%s,"verificationMethod":%s,"id":%q}`, entry, pds, key, did),
			"before": fmt.Sprintf(`{"service":[%[1]s],"verificationMethod":%[1]s,"id":%[1]s,"service":[%[2]s],"verificationMethod":[%[3]s],"id":%[4]q}`,
				entry, pds, key, did),
		} {
			t.Run(fmt.Sprintf("%d %s", i, name), func(t *testing.T) {
				t.Parallel()
				read, err := readDocument([]byte(doc), alice)
				if err != nil || read.endpoint != "https://pds.example.com" || read.key.text != testKey {
					t.Errorf("%.400s: %+v, %v", doc, read, err)
				}
			})
		}
	}
}

// TestDocumentComesAsItLikes has a document of every content type, behind a byte order
// mark, and large.
func TestDocumentComesAsItLikes(t *testing.T) {
	t.Parallel()
	var services []string
	for i := range 10_000 {
		services = append(services, fmt.Sprintf(`{"id":"#s%d","type":"LinkedDomains","serviceEndpoint":["https://s%[1]d.example.com"]}`, i))
	}
	services = append(services, pdsService("#atproto_pds", "https://pds.example.com"))
	for kind, doc := range map[string]string{
		"text/html; charset=utf-8": document(alice.String(), pdsService("#atproto_pds", "https://pds.example.com"), ""),
		"application/xhtml+xml":    "\ufeff " + document(alice.String(), pdsService("#atproto_pds", "https://pds.example.com"), ""),
		"":                         "\ufeff" + document(alice.String(), pdsService("#atproto_pds", "https://pds.example.com"), ""),
		"image/png; ;":             "\n\t" + document(alice.String(), pdsService("#atproto_pds", "https://pds.example.com"), "") + "\r\n",
		"application/json":         document(alice.String(), strings.Join(services, ","), ""),
	} {
		plc := hosttest.Serve(t, hosttest.Says(200, kind, doc))
		id, err := newClient(t, Config{PLC: string(plc)}).Lookup(t.Context(), alice)
		if err != nil || id.PDS != "https://pds.example.com" {
			t.Errorf("as %q: got %+v, %v", kind, id, err)
		}
	}
}

// TestPDSOfAnOddShape has PDS entries that are ours and not as the lexicon has them.
func TestPDSOfAnOddShape(t *testing.T) {
	t.Parallel()
	c := newClient(t, Config{})
	entry := func(kind, endpoint string) string {
		return `{"id":"#atproto_pds","type":` + kind + `,"serviceEndpoint":` + endpoint + `}`
	}
	good := pdsService(alice.String()+"#atproto_pds", "https://pds.example.com")
	for name, x := range map[string]struct {
		services string
		want     outcome.Reason
	}{
		"type in a list":               {entry(`["X","AtprotoPersonalDataServer"]`, `"https://pds.example.com"`), ""},
		"endpoint in a list":           {entry(`"AtprotoPersonalDataServer"`, `[{},"https://pds.example.com","https://x.example.com"]`), ""},
		"endpoint twice":               {`{"id":"#atproto_pds","type":"AtprotoPersonalDataServer","serviceEndpoint":{"a":1},"serviceEndpoint":"https://pds.example.com"}`, ""},
		"endpoint is an object":        {entry(`"AtprotoPersonalDataServer"`, `{"uri":"https://pds.example.com"}`), outcome.ReasonBadEndpoint},
		"endpoint is a number":         {entry(`"AtprotoPersonalDataServer"`, `8080`), outcome.ReasonBadEndpoint},
		"endpoint is a list of lists":  {entry(`"AtprotoPersonalDataServer"`, `[["https://pds.example.com"]]`), outcome.ReasonBadEndpoint},
		"endpoint is null":             {entry(`"AtprotoPersonalDataServer"`, `null`), outcome.ReasonNoPDS},
		"endpoint is an empty list":    {entry(`"AtprotoPersonalDataServer"`, `[]`), outcome.ReasonNoPDS},
		"no endpoint":                  {`{"id":"#atproto_pds","type":"AtprotoPersonalDataServer"}`, outcome.ReasonNoPDS},
		"an object, and a good one":    {entry(`"AtprotoPersonalDataServer"`, `{}`) + "," + good, ""},
		"a bad one, then a good one":   {entry(`"AtprotoPersonalDataServer"`, `"ftp://x"`) + "," + good, outcome.ReasonBadEndpoint},
		"a good one, then another one": {good + "," + entry(`"AtprotoPersonalDataServer"`, `"https://x.example.com"`), ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			doc, err := readDocument([]byte(document(alice.String(), x.services, "")), alice)
			if err != nil {
				t.Fatal(err)
			}
			id, err := c.identity(alice, doc)
			if reasonOf(err) != string(x.want) || x.want == "" && id.PDS != "https://pds.example.com" {
				t.Errorf("got %s, %v, want %s", id.PDS, err, x.want)
			}
		})
	}
}

// TestEveryFormOfAKey has the keys of both curves in every form that the reference
// implementation takes, and in some that it does not.
func TestEveryFormOfAKey(t *testing.T) {
	t.Parallel()
	p256, err := atcrypto.GeneratePrivateKeyP256()
	if err != nil {
		t.Fatal(err)
	}
	k256, err := atcrypto.GeneratePrivateKeyK256()
	if err != nil {
		t.Fatal(err)
	}
	for suite, private := range map[string]atcrypto.PrivateKey{suiteP256: p256, suiteK256: k256} {
		public, err := private.PublicKey()
		if err != nil {
			t.Fatal(err)
		}
		wantKey(t, suiteMultikey, public.Multibase(), public)
		for _, data := range [][]byte{public.Bytes(), public.UncompressedBytes()} {
			for _, base := range bases {
				text, err := multibase.Encode(multibase.Encoding(base), data)
				if err != nil {
					t.Fatal(err)
				}
				wantKey(t, suite, text, public)
				wantKey(t, suiteMultikey, text, nil) // its bytes have a prefix
				wantKey(t, "JsonWebKey2020", text, nil)
			}
			for _, base := range []multibase.Encoding{multibase.Base2, multibase.Base36, multibase.Base64pad, multibase.Identity} {
				text, err := multibase.Encode(base, data)
				if err != nil {
					t.Fatal(err)
				}
				wantKey(t, suite, text, nil)
			}
			flipped := append([]byte{7}, data[1:]...)
			text, err := multibase.Encode(multibase.Base58BTC, flipped)
			if err != nil {
				t.Fatal(err)
			}
			wantKey(t, suite, text, nil)
		}
		wantKey(t, suite, public.Multibase(), nil)
		wantKey(t, suite, "", nil)
		wantKey(t, suite, "z", nil)
	}
}

func wantKey(t *testing.T, suite, text string, want atcrypto.PublicKey) {
	t.Helper()
	got, err := signingKey{found: true, suite: suite, text: text}.parse()
	if want == nil && err == nil || want != nil && (err != nil || !want.Equal(got)) {
		t.Errorf("%s %q: got %v, %v, want %v", suite, text, got, err, want)
	}
}

// TestWhoseKeyItIs has keys with controllers of every shape.
func TestWhoseKeyItIs(t *testing.T) {
	t.Parallel()
	did, other := alice.String(), "did:plc:bbbbbbbbbbbbbbbbbbbbbbbb"
	key := func(id, controller, text string) string {
		return `{"id":"` + id + `","type":["Multikey"],"controller":` + controller + `,"publicKeyMultibase":"` + text + `"}`
	}
	for keys, want := range map[string]string{
		key("#atproto", `["`+other+`","`+did+`"]`, "own") + "," + key("#atproto", `"`+did+`"`, "second"):    "own",
		key("#atproto", `null`, "own") + "," + key(did+"#atproto", `"`+did+`"`, "second"):                   "own",
		key("#atproto", `{"id":"`+other+`"}`, "own"):                                                        "own",
		key("#atproto", `"`+other+`"`, "foreign") + "," + key(did+"#atproto", `"`+did+`"`, "own"):           "own",
		key("#atproto", `["`+other+`"]`, "foreign") + "," + key("#other", `"`+did+`"`, "second"):            "foreign",
		key("#Atproto", `"`+did+`"`, "x") + "," + key("atproto", `"`+did+`"`, "y"):                          "",
		key(other+"#atproto", `"`+did+`"`, "x") + "," + key("https://example.com#atproto", `"x"`, "y"):      "",
		strings.Replace(key("#atproto", `"`+did+`"`, ""), `"id"`, `"publicKeyMultibase":"own","key"`, 1):    "",
		strings.Replace(key("#atproto", `"`+did+`"`, "own"), `"id"`, `"publicKeyMultibase":"x","id"`, 1):    "own",
		key("#atproto", `"`+did+`"`, "own") + `,{"id":"#atproto","type":"Multikey","publicKeyMultibase":1}`: "own",
	} {
		doc, err := readDocument([]byte(document(did, "", keys)), alice)
		if err != nil || doc.key.text != want {
			t.Errorf("%s: got %q, %v, want %q", keys, doc.key.text, err, want)
		}
	}
}

// TestAHugeKeyCostsNothing has a key that takes minutes to be read in base58.
func TestAHugeKeyCostsNothing(t *testing.T) {
	t.Parallel()
	plc := hosttest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		key := `{"id":"#atproto","type":"` + suiteP256 + `","publicKeyMultibase":"z` + repeat("z", 900<<10) + `"}`
		hosttest.Says(200, "application/json", document(alice.String(), pdsService("#atproto_pds", "https://pds.example.com"), key))(w, r)
	})
	id, err := newClient(t, Config{PLC: string(plc)}).Lookup(t.Context(), alice)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if _, err := id.Key(); err == nil {
		t.Error("it is a key")
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("it took %s", took)
	}
}
