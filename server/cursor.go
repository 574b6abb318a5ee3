package server

import (
	"encoding/base64"
	"strconv"
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// cursor is where a page of records ends. It names the query that it belongs to,
// so that one query's cursor cannot skip another one's records.
type cursor struct {
	collection syntax.NSID // of the query
	did        syntax.DID  // of the query

	below uint64           // in the order of changes, for a query without a DID
	at    syntax.NSID      // collection to go on in, for a query with a DID
	after syntax.RecordKey // last key that was given there, empty: none yet
}

// cursorVersion begins every cursor. Another version is refused.
const cursorVersion = "1"

// String is the cursor as clients get it: no part of it is for them to read.
func (c cursor) String() string {
	below := ""
	if c.below > 0 {
		below = strconv.FormatUint(c.below, 10)
	}
	parts := []string{cursorVersion, string(c.collection), string(c.did), below, string(c.at), string(c.after)}
	return base64.RawURLEncoding.EncodeToString([]byte(strings.Join(parts, "\x00")))
}

// parseCursor reads what String has written, for the given query.
func parseCursor(text string, collection syntax.NSID, did syntax.DID) (cursor, error) {
	c := cursor{collection: collection, did: did}
	if text == "" {
		return c, nil
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	parts := strings.Split(string(raw), "\x00")
	if err != nil || len(parts) != 6 || parts[0] != cursorVersion {
		return c, badRequest("cursor %s was not made here: leave it out to begin anew", quoted(text))
	}
	if parts[1] != string(collection) || parts[2] != string(did) {
		return c, badRequest("the cursor belongs to another query: send the same collection and did with it")
	}
	broken := badRequest("cursor %s is broken: leave it out to begin anew", quoted(text))
	if did == "" {
		c.below, err = strconv.ParseUint(parts[3], 10, 64)
		if err != nil || c.below == 0 || c.String() != text {
			return c, broken
		}
		return c, nil
	}
	if c.at, err = syntax.ParseNSID(parts[4]); err != nil {
		return c, broken
	}
	if parts[5] != "" {
		if c.after, err = syntax.ParseRecordKey(parts[5]); err != nil {
			return c, broken
		}
	}
	if c.String() != text {
		return c, broken
	}
	return c, nil
}
