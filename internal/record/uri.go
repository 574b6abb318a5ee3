package record

import (
	"fmt"
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// uriScheme begins every AT-URI.
const uriScheme = "at://"

// URI is the address of one record: at://did/collection/rkey. A handle in place
// of the DID is not an address, because a handle can move to another account.
type URI struct {
	DID        syntax.DID
	Collection syntax.NSID
	RKey       syntax.RecordKey
}

// ParseCollection reads the name of a collection as repos must have it: an NSID whose
// authority, all but the last segment, is in lower case. Hosts compare names byte by byte.
func ParseCollection(s string) (syntax.NSID, error) {
	c, err := syntax.ParseNSID(s)
	if err == nil && c.Normalize() != c {
		err = fmt.Errorf("the authority of NSID %.200q is not in lower case", s)
	}
	if err != nil {
		return "", fmt.Errorf("collection: %w: %w", ErrInvalid, err)
	}
	return c, nil
}

// ParseURI reads a record's address. It wants all three parts and nothing after
// them: no query, no fragment, no trailing slash. The authority of the collection is
// brought to lower case, as repos have it.
func ParseURI(s string) (URI, error) {
	rest, ok := strings.CutPrefix(s, uriScheme)
	if !ok {
		return URI{}, fmt.Errorf("record uri %.200q does not begin with %s: %w", s, uriScheme, ErrInvalid)
	}
	parts := strings.Split(rest, "/")
	if len(parts) != 3 {
		return URI{}, fmt.Errorf("record uri %.200q is not did/collection/rkey: %w", s, ErrInvalid)
	}
	did, err := syntax.ParseDID(parts[0])
	if err != nil {
		return URI{}, fmt.Errorf("record uri %.200q: %w: %w", s, ErrInvalid, err)
	}
	collection, err := syntax.ParseNSID(parts[1])
	if err != nil {
		return URI{}, fmt.Errorf("record uri %.200q: %w: %w", s, ErrInvalid, err)
	}
	rkey, err := syntax.ParseRecordKey(parts[2])
	if err != nil {
		return URI{}, fmt.Errorf("record uri %.200q: %w: %w", s, ErrInvalid, err)
	}
	return URI{DID: did, Collection: collection.Normalize(), RKey: rkey}, nil
}

// String is the address as it is written everywhere.
func (u URI) String() string {
	return uriScheme + u.DID.String() + "/" + u.Collection.String() + "/" + u.RKey.String()
}
