package index

import (
	"encoding/binary"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// rid numbers a repo in the order of its first committed record.
type rid uint32

// ridLen is the length of a rid in a key.
const ridLen = 4

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
