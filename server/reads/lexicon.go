package reads

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"

	"appview/server/answer"
)

// Parameters are checked as the reference PDS checks them against the lexicon,
// with its words, so that a client cannot tell the two apart.

// maxCIDText bounds a CID before it is read, because one of its spellings takes
// a time that grows with the square of its length.
const maxCIDText = 256

// xrpcParams are the parameters of a query.
type xrpcParams struct {
	method string
	values url.Values
}

// parseXRPC reads the parameters of a method. Unknown ones are ignored, and so are
// empty ones.
func parseXRPC(r *http.Request, method string, known ...string) (xrpcParams, error) {
	p := xrpcParams{method: method}
	var err error
	if p.values, err = url.ParseQuery(answer.OnlyKnown(r.URL.RawQuery, known)); err != nil {
		return p, p.invalid("the query cannot be read: " + err.Error())
	}
	for _, name := range known {
		list := p.values[name]
		if slices.Contains(list, "") {
			list = slices.DeleteFunc(list, func(v string) bool { return v == "" })
			p.values[name] = list
		}
		if len(list) > 1 {
			return p, p.expected(kindOfParam(name), shown(list))
		}
	}
	return p, nil
}

func kindOfParam(name string) string {
	switch name {
	case "limit":
		return "integer"
	case "reverse":
		return "boolean"
	default:
		return "string"
	}
}

func (p xrpcParams) get(name string) string {
	if list := p.values[name]; len(list) > 0 {
		return list[0]
	}
	return ""
}

// required is a parameter that must be there.
func (p xrpcParams) required(name string) (string, error) {
	value := p.get(name)
	if value == "" {
		return "", p.invalid("Missing required key " + strconv.Quote(name))
	}
	return value, nil
}

func (p xrpcParams) invalid(what string) error {
	return answer.BadRequest("Invalid %s params: %s", p.method, what)
}

func (p xrpcParams) expected(kind, got string) error {
	return p.invalid("Expected " + kind + " value type (got " + got + ")")
}

// shown is a value as the reference PDS shows it, cut to a readable length.
func shown(value any) string {
	if text, is := value.(string); is && len(text) > answer.MaxQuoted {
		value = strings.ToValidUTF8(text[:answer.MaxQuoted], "") + "…"
	}
	var out strings.Builder
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if enc.Encode(value) != nil || out.Len() > 4*answer.MaxQuoted {
		return "…"
	}
	return strings.TrimSuffix(out.String(), "\n")
}

// repo is the repo that a query names. The index does not look handles up.
func (p xrpcParams) repo() (syntax.DID, error) {
	text, err := p.required("repo")
	if err != nil {
		return "", err
	}
	if did, err := syntax.ParseDID(text); err == nil {
		return did, nil
	}
	if _, err := syntax.ParseHandle(text); err == nil {
		return "", answer.BadRequest("repo must be a DID, not a handle: this index does not look handles up")
	}
	return "", p.invalid("Invalid AT identifier (got " + shown(text) + ")")
}

func (p xrpcParams) collection() (syntax.NSID, error) {
	text, err := p.required("collection")
	if err != nil {
		return "", err
	}
	nsid, err := syntax.ParseNSID(text)
	if err != nil {
		return "", p.invalid("Invalid NSID (got " + shown(text) + ")")
	}
	return nsid.Normalize(), nil // as repos have it
}

func (p xrpcParams) rkey() (syntax.RecordKey, error) {
	text, err := p.required("rkey")
	if err != nil {
		return "", err
	}
	rkey, err := syntax.ParseRecordKey(text)
	if err != nil {
		return "", p.invalid("Invalid record key (got " + shown(text) + ")")
	}
	return rkey, nil
}

// wantedCID is the CID that a record is wanted with.
type wantedCID struct {
	any bool // none was named
	cid cid.Cid
}

func (w wantedCID) matches(c cid.Cid) bool { return w.any || w.cid.Defined() && w.cid.Equals(c) }

// cid is any when none is asked for. A text in the syntax of the lexicon that no library
// decodes is the CID of no record.
func (p xrpcParams) cid() (wantedCID, error) {
	text := p.get("cid")
	if text == "" {
		return wantedCID{any: true}, nil
	}
	if len(text) <= maxCIDText && !strings.HasPrefix(text, "Qm") { // CIDs of version 0 are no part of atproto
		if c, err := cid.Decode(text); err == nil && c.Version() > 0 {
			return wantedCID{cid: c}, nil
		}
		if _, err := syntax.ParseCID(text); err == nil {
			return wantedCID{}, nil
		}
	}
	return wantedCID{}, p.invalid("Invalid CID string (got " + shown(text) + ")")
}

func (p xrpcParams) limit(standard, most int) (int, error) {
	text := p.get("limit")
	if text == "" {
		return standard, nil
	}
	n, err := strconv.Atoi(text)
	switch {
	case text[0] == '+', err != nil && !errors.Is(err, strconv.ErrRange):
		return 0, p.expected("integer", shown(text))
	case n < 1:
		return 0, p.invalid("integer too small (minimum 1, got " + strconv.Itoa(n) + ")")
	case n > most:
		return 0, p.invalid("integer too big (maximum " + strconv.Itoa(most) + ", got " + strconv.Itoa(n) + ")")
	}
	return n, nil
}

func (p xrpcParams) boolean(name string) (bool, error) {
	switch text := p.get(name); text {
	case "", "false":
		return false, nil
	case "true":
		return true, nil
	default:
		return false, p.expected("boolean", shown(text))
	}
}
