package answer

import (
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/store/index"
)

// Lengths of identifiers, as the specification has them.
const (
	maxNSID = 317
	maxDID  = 2048
)

// ParseCollection reads a collection that a client has named, and brings its authority to
// lower case, as repos have it. Empty is none.
func ParseCollection(text string) (syntax.NSID, error) {
	if text == "" {
		return "", nil
	}
	nsid, err := syntax.ParseNSID(text)
	if err == nil {
		return nsid.Normalize(), nil
	}
	why := "it must be letters, digits and hyphens in segments separated by dots, the last one letters and digits only"
	switch {
	case len(text) > maxNSID:
		return "", BadRequest("collection is no valid NSID: it has %d characters, at most %d are allowed", len(text), maxNSID)
	case strings.HasPrefix(text, "."), strings.HasSuffix(text, "."), strings.Contains(text, ".."):
		why = "a segment is empty"
	case strings.Count(text, ".") < 2:
		why = "it needs at least three segments, as in com.example.thing"
	}
	return "", BadRequest("collection %s is no valid NSID: %s", Quoted(text), why)
}

// ParseDID reads a DID that a client has named. Empty is none.
func ParseDID(text string) (syntax.DID, error) {
	if text == "" {
		return "", nil
	}
	did, err := syntax.ParseDID(text)
	if err == nil {
		return did, nil
	}
	why := "it must be did:, a method, a colon and letters, digits or any of . _ : % -"
	rest, isDID := strings.CutPrefix(text, "did:")
	method, id, hasID := strings.Cut(rest, ":")
	switch {
	case len(text) > maxDID:
		return "", BadRequest("did is no valid DID: it has %d characters, at most %d are allowed", len(text), maxDID)
	case !isDID:
		why = "it must begin with did: (a handle is not a DID)"
	case method != strings.ToLower(method):
		why = "its method must be in lower case"
	case !hasID || id == "":
		why = "nothing follows its method"
	}
	return "", BadRequest("did %s is no valid DID: %s", Quoted(text), why)
}

// ParseFilter reads the parameters collection and did.
func ParseFilter(params map[string]string) (filter index.Filter, err error) {
	if filter.Collection, err = ParseCollection(params["collection"]); err != nil {
		return filter, err
	}
	filter.DID, err = ParseDID(params["did"])
	return filter, err
}
