package jobs

import (
	"bytes"
	"fmt"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/google/uuid"

	"appview/store/kv"
)

// allCollections is the key of what jobs over all collections came to. No NSID is.
const allCollections = "*"

// freshnessKey is the key of how fresh a collection is. Empty: all collections.
func freshnessKey(c syntax.NSID) []byte {
	if c == "" {
		return []byte(allCollections)
	}
	return []byte(c)
}

// owedKey is the key of a queue row. An empty host is the queue of repos whose
// host is not known yet.
func owedKey(host string, did syntax.DID) []byte {
	k := make([]byte, 0, len(host)+1+len(did))
	k = append(k, host...)
	k = append(k, 0)
	return append(k, did...)
}

// splitOwedKey is the inverse of owedKey. It copies what it returns.
func splitOwedKey(k []byte) (host string, did syntax.DID, ok bool) {
	h, d, ok := bytes.Cut(k, []byte{0})
	return string(h), syntax.DID(d), ok
}

// afterHost is greater than every queue key of the host and smaller than those
// of the next one.
func afterHost(host string) []byte { return append([]byte(host), 1) }

// replyKey is the key of what was replied to a request.
func replyKey(owner uuid.UUID, key string) []byte { return append(owner[:], key...) }

// replyOwner is whose reply stands under a key.
func replyOwner(k []byte) (owner uuid.UUID, err error) {
	if n := len(k) - len(owner); n < 1 || n > MaxIdempotencyKey {
		return owner, fmt.Errorf("%w: the key of a reply has %d bytes", kv.ErrRow, len(k))
	}
	return uuid.UUID(k[:len(owner)]), nil
}
