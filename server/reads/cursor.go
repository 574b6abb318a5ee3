package reads

import (
	"encoding/base64"
	"math"
	"strconv"
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/server/answer"
)

// order is how a list of records is sorted.
type order string

const (
	byIndexed order = "indexed" // latest indexed first, across repos
	byKey     order = "rkey"    // highest record key first, across repos
	byRepo    order = "repo"    // one repo, by collection, then highest record key first
)

// cursor is where a page of records ends. It names the query that it belongs to,
// so that one query's cursor cannot skip another one's records.
type cursor struct {
	order      order       // of the query
	collection syntax.NSID // of the query
	did        syntax.DID  // of the query

	number uint64           // byIndexed: place in the order of changes; byKey: the repo of the last key
	at     syntax.NSID      // byRepo: collection to go on in
	after  syntax.RecordKey // byKey, byRepo: last key that was given, empty: none yet
}

// cursorVersion begins every cursor. Another version is refused.
const cursorVersion = "1"

// String is the cursor as clients get it: no part of it is for them to read.
func (c cursor) String() string {
	number := ""
	if c.number > 0 {
		number = strconv.FormatUint(c.number, 10)
	}
	parts := []string{cursorVersion, string(c.order), string(c.collection), string(c.did), number, string(c.at), string(c.after)}
	return base64.RawURLEncoding.EncodeToString([]byte(strings.Join(parts, "\x00")))
}

// parseCursor reads what String has written, for the given query.
func parseCursor(text string, by order, collection syntax.NSID, did syntax.DID) (cursor, error) {
	c := cursor{order: by, collection: collection, did: did}
	if text == "" {
		return c, nil
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	parts := strings.Split(string(raw), "\x00")
	if err != nil || len(parts) != 7 || parts[0] != cursorVersion {
		return c, answer.BadRequest("cursor %s was not made here: leave it out to begin anew", answer.Quoted(text))
	}
	if parts[1] != string(by) || parts[2] != string(collection) || parts[3] != string(did) {
		return c, answer.BadRequest("the cursor belongs to another query: send the same collection, did and order with it")
	}
	if !c.place(parts[4], parts[5], parts[6]) || c.String() != text {
		return c, answer.BadRequest("cursor %s is broken: leave it out to begin anew", answer.Quoted(text))
	}
	return c, nil
}

// place reads the parts that say where the page ends.
func (c *cursor) place(number, at, after string) bool {
	var errs [3]error
	if number != "" {
		c.number, errs[0] = strconv.ParseUint(number, 10, 64)
	}
	if at != "" {
		c.at, errs[1] = syntax.ParseNSID(at)
	}
	if after != "" {
		c.after, errs[2] = syntax.ParseRecordKey(after)
	}
	if errs != [3]error{} {
		return false
	}
	switch c.order {
	case byIndexed:
		return c.number > 0 && c.at == "" && c.after == ""
	case byKey:
		return c.number > 0 && c.number <= math.MaxUint32 && c.at == "" && c.after != ""
	default:
		return c.number == 0 && c.at != ""
	}
}
