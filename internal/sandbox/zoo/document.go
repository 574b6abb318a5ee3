package zoo

import (
	"bytes"
	"encoding/json"
	"strings"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/multiformats/go-multibase"

	"appview/internal/sandbox"
)

func documentZoo() []Behaviour {
	return []Behaviour{
		NoPDS(), LongServiceID(), NoKey(), EndpointWithPath(), EndpointWithUser(), EndpointWithBadPort(), NoEndpoint(), BadDocument(),
		OddEntries(), OddPDS(), EndpointObject(), DocumentAsPage(), LegacyKey(false), LegacyKey(true),
	}
}

// onDocument changes a DID document as text.
func onDocument(change func(r sandbox.Request, document string) string) func(*sandbox.World, sandbox.Request) sandbox.Fault {
	return func(w *sandbox.World, r sandbox.Request) sandbox.Fault {
		return on(sound(func(a sandbox.Answer) sandbox.Answer {
			a.Body = []byte(change(r, string(a.Body)))
			return a
		}), sandbox.MethodDID)(w, r)
	}
}

// Endpoint makes the DID document name another PDS address. With an address that
// is not on loopback it is for readers whose guard is on: nothing must leave for it.
func Endpoint(name, endpoint string, o Outcome) Behaviour {
	return Behaviour{Name: name, Listed: o, Whole: o, fault: onDocument(func(_ sandbox.Request, document string) string {
		before, after, ok := strings.Cut(document, `"serviceEndpoint":`)
		if _, rest, more := strings.Cut(strings.TrimPrefix(after, `"`), `"`); ok && more {
			quoted, err := json.Marshal(endpoint)
			if err == nil {
				return before + `"serviceEndpoint":` + string(quoted) + rest
			}
		}
		return document
	})}
}

// PrivateEndpoint is at a private address. It is not in the Zoo, because only a
// reader whose guard is on refuses it, and such a one cannot reach a sandbox.
func PrivateEndpoint() Behaviour {
	return Endpoint("private endpoint", "https://127.0.0.1", failed("refused_address"))
}

// EndpointWithPath has a path behind its name.
func EndpointWithPath() Behaviour {
	return Endpoint("endpoint with path", "http://127.0.0.1:1/path", failed("bad_endpoint"))
}

// EndpointWithUser has a user name in front of it.
func EndpointWithUser() Behaviour {
	return Endpoint("endpoint with user", "http://user:word@127.0.0.1:1", failed("bad_endpoint"))
}

// EndpointWithBadPort has a port that is none.
func EndpointWithBadPort() Behaviour {
	return Endpoint("endpoint with bad port", "http://127.0.0.1:70000", failed("bad_endpoint"))
}

// NoEndpoint has a PDS without an address.
func NoEndpoint() Behaviour { return Endpoint("no endpoint", "", unavailable("no_pds")) }

// NoPDS has no PDS in its document, but another service.
func NoPDS() Behaviour {
	return Behaviour{
		Name: "no pds", Listed: unavailable("no_pds"), Whole: unavailable("no_pds"),
		fault: onDocument(func(_ sandbox.Request, document string) string {
			return strings.ReplaceAll(strings.ReplaceAll(document, "#atproto_pds", "#labeler"), "AtprotoPersonalDataServer", "AtprotoLabeler")
		}),
	}
}

// LongServiceID names the PDS in the other way that is allowed: by the whole DID.
func LongServiceID() Behaviour {
	return Behaviour{Name: "long service id", fault: onDocument(func(r sandbox.Request, document string) string {
		return strings.Replace(document, `"#atproto_pds"`, `"`+r.DID+`#atproto_pds"`, 1)
	})}
}

// NoKey has no signing key in its document: what the repo says cannot be proved.
func NoKey() Behaviour {
	return Behaviour{
		Name: "no key", Whole: failed("bad_signature"),
		fault: onDocument(func(_ sandbox.Request, document string) string {
			return strings.ReplaceAll(document, "#atproto\"", "#other\"")
		}),
	}
}

// BadDocument is no JSON.
func BadDocument() Behaviour {
	return Behaviour{
		Name: "bad document", Listed: failed("did_lookup"), Whole: failed("did_lookup"),
		fault: on(sound(func(a sandbox.Answer) sandbox.Answer {
			a.Body = bytes.ReplaceAll(a.Body, []byte(":"), []byte(";"))
			return a
		}), sandbox.MethodDID),
	}
}

// OddEntries has entries of every shape around those that matter.
func OddEntries() Behaviour {
	const odd = `null,7,"text",[],{},{"id":"#domains","type":["LinkedDomains"],"controller":[{}],"serviceEndpoint":{"origins":["https://example.com"]}},`
	return Behaviour{Name: "odd entries", fault: onDocument(func(_ sandbox.Request, document string) string {
		for _, list := range []string{`"service":[`, `"verificationMethod":[`, `"alsoKnownAs":[`, `"@context":[`} {
			document = strings.Replace(document, list, list+odd, 1)
		}
		return strings.Replace(document, `"alsoKnownAs"`, `"controller":[null],"assertionMethod":{},"alsoKnownAs"`, 1)
	})}
}

// OddPDS has the PDS's type in a list, its endpoint in a list, and the key's controller in one.
func OddPDS() Behaviour {
	return Behaviour{Name: "odd pds", fault: onDocument(func(r sandbox.Request, document string) string {
		document = strings.Replace(document, `"AtprotoPersonalDataServer"`, `["Service","AtprotoPersonalDataServer"]`, 1)
		document = strings.Replace(document, `"controller":"`+r.DID+`"`, `"controller":["did:web:example.com","`+r.DID+`"]`, 1)
		before, after, _ := strings.Cut(document, `"serviceEndpoint":`)
		return before + `"serviceEndpoint":[` + strings.Replace(after, `}`, `]}`, 1)
	})}
}

// EndpointObject has an object where the address of the PDS ought to be.
func EndpointObject() Behaviour {
	return Behaviour{
		Name: "endpoint is an object", Listed: failed("bad_endpoint"), Whole: failed("bad_endpoint"),
		fault: onDocument(func(_ sandbox.Request, document string) string {
			before, after, _ := strings.Cut(document, `"serviceEndpoint":`)
			return before + `"serviceEndpoint":{"uri":` + strings.Replace(after, `}`, `}}`, 1)
		}),
	}
}

// DocumentAsPage says that the document is a web page, and puts a byte order mark in
// front of it.
func DocumentAsPage() Behaviour {
	return Behaviour{Name: "document as a page", fault: on(sound(func(a sandbox.Answer) sandbox.Answer {
		a.Header.Set("Content-Type", contentHTML)
		a.Body = append([]byte("\ufeff"), a.Body...)
		return a
	}), sandbox.MethodDID)}
}

// LegacyKey has the signing key in the form of older documents, its point compressed or
// whole.
func LegacyKey(compressed bool) Behaviour {
	name := "legacy key"
	if compressed {
		name = "legacy key, compressed"
	}
	return Behaviour{Name: name, fault: onDocument(func(_ sandbox.Request, document string) string {
		before, after, _ := strings.Cut(document, `"type":"Multikey"`)
		text, _, _ := strings.Cut(after[strings.Index(after, `"publicKeyMultibase":"`)+len(`"publicKeyMultibase":"`):], `"`)
		key, err := atcrypto.ParsePublicMultibase(text)
		if err != nil {
			return document
		}
		suite, point := "EcdsaSecp256k1VerificationKey2019", key.UncompressedBytes()
		if _, ok := key.(*atcrypto.PublicKeyP256); ok {
			suite = "EcdsaSecp256r1VerificationKey2019"
		}
		if compressed {
			point = key.Bytes()
		}
		legacy, err := multibase.Encode(multibase.Base58BTC, point)
		if err != nil {
			return document
		}
		return before + `"type":"` + suite + `"` + strings.Replace(after, text, legacy, 1)
	})}
}
