package store

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/google/uuid"

	"appview/store/kv"
)

// rid numbers a repo in the order of its first committed record.
type rid uint32

// ridLen is the length of a rid in a key.
const ridLen = 4

func u64Key(n uint64) []byte { return kv.NumberKey(n) }

// u64Len is the length of such a key.
const u64Len = 8

// ridKey is the key of a repo's row, and the prefix of its records.
func ridKey(r rid) []byte { return binary.BigEndian.AppendUint32(nil, uint32(r)) }

// recordKey is the key of a record within its collection's bucket.
func recordKey(r rid, rkey syntax.RecordKey) []byte {
	k := make([]byte, 0, ridLen+len(rkey))
	k = binary.BigEndian.AppendUint32(k, uint32(r))
	return append(k, rkey...)
}

// splitRecordKey is the inverse of recordKey. It copies what it returns.
func splitRecordKey(k []byte) (rid, syntax.RecordKey, bool) {
	if len(k) <= ridLen {
		return 0, "", false
	}
	return rid(binary.BigEndian.Uint32(k)), syntax.RecordKey(k[ridLen:]), true
}

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

// marksKey is the key of the bucket of what a repo read in steps has listed of a
// collection.
func marksKey(did syntax.DID, collection syntax.NSID) []byte {
	return append(marksPrefix(did), collection...)
}

// marksPrefix is the prefix of all marksKeys of a repo.
func marksPrefix(did syntax.DID) []byte {
	k := make([]byte, 0, len(did)+1)
	k = append(k, did...)
	return append(k, 0)
}

// replyKey is the key of what was replied to a request.
func replyKey(owner uuid.UUID, key string) []byte { return append(owner[:], key...) }

// splitReplyKey is the inverse of replyKey. It copies what it returns.
func splitReplyKey(k []byte) (owner uuid.UUID, key string, err error) {
	if n := len(k) - len(owner); n < 1 || n > MaxIdempotencyKey {
		return owner, "", fmt.Errorf("%w: the key of a reply has %d bytes", errRow, len(k))
	}
	return uuid.UUID(k[:len(owner)]), string(k[len(owner):]), nil
}
