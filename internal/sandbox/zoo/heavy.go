package zoo

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"

	"appview/internal/sandbox"
	"appview/internal/sandbox/encode"
)

// Heavy are behaviours that want a reader's memory, time or disk. They are not in the
// zoo, since each takes some of the sandbox's own. What a host lists is sound all the
// while, so that a reader which refuses the CAR can still have the records.
func Heavy() []Behaviour {
	return []Behaviour{
		LongKeys(3, 20_000), LongRecordKeys(15_000), OwnLongRecordKeys(15_000, 190), NamedOften(15_000, 10), NamedOften(15_000, 900_000), TinyBlocks(64 << 20), LargeCAR(120 << 20),
		EndlessRecords(900, 100), EndlessRejects(900),
	}
}

// EndlessRecords has so many new records on every page, with a text of so many bytes each,
// and no end. The repo is not given whole.
func EndlessRecords(each, size int) Behaviour {
	text := strings.Repeat("x", size)
	return notWhole(endlessPages("endless records", each, func(r sandbox.Request, key syntax.RecordKey, n int) (string, error) {
		return madeUp(r, key, map[string]any{"text": text, "n": int64(n)})
	}))
}

// EndlessRejects has so many entries on every page that are not what their CIDs say, under
// keys that are nearly as long as they may be, and no end. The repo is not given whole.
func EndlessRejects(each int) Behaviour {
	return notWhole(endlessPages("endless rejects", each, func(r sandbox.Request, key syntax.RecordKey, n int) (string, error) {
		entry, err := madeUp(r, key+syntax.RecordKey(strings.Repeat("k", 490)), map[string]any{"text": "wrong", "n": int64(n)})
		return wrongCID(entry), err
	}))
}

// notWhole has a behaviour refuse to give the repo whole, which would show what it makes up.
func notWhole(b Behaviour) Behaviour {
	listed := b.fault
	b.fault = func(w *sandbox.World, r sandbox.Request) sandbox.Fault {
		if r.Method == sandbox.MethodGetRepo {
			return missingMethod()
		}
		return listed(w, r)
	}
	return b
}

// heavy gives every repo the same blocks below a commit of its own. build is called once,
// when they are first asked for.
func heavy(name string, build func() (root cid.Cid, blocks []byte, err error)) Behaviour {
	var blocks []byte
	made := sync.OnceValues(func() (root cid.Cid, err error) {
		root, blocks, err = build()
		return root, err
	})
	return Behaviour{Name: name, fault: func(w *sandbox.World, r sandbox.Request) sandbox.Fault {
		if !isRepo(w, r) {
			return sandbox.Fault{}
		}
		did := syntax.DID(r.DID)
		return on(sound(func(answer sandbox.Answer) sandbox.Answer {
			root, err := made()
			commit, failed := commitOf(w, did)
			commit.Data = root
			signed, unsigned := w.Sign(did, commit)
			if err := errors.Join(err, failed, unsigned); err != nil {
				return sandbox.Answer{Status: http.StatusInternalServerError, Body: []byte(err.Error())}
			}
			var c carBlocks
			c.setRoot(signed)
			answer.Body = append(c.join(), blocks...)
			return answer
		}), sandbox.MethodGetRepo)(w, r)
	}}
}

// appendBlock writes a block behind its length.
func appendBlock(into []byte, id cid.Cid, data []byte) []byte {
	b := id.Bytes()
	into = binary.AppendUvarint(into, uint64(len(b)+len(data)))
	return append(append(into, b...), data...)
}

// longCollection is as long as a collection's name may be, to a few bytes.
func longCollection() string {
	label := strings.Repeat("a", 62)
	return strings.Join([]string{label, label, label, label, label}, ".")
}

// LongKeys is a repo of long keys that share nearly all of their bytes, on many layers,
// one node on each: a few bytes for each key of 827. Its records are links to nothing.
func LongKeys(layers, each int) Behaviour {
	return heavy("long keys", func() (cid.Cid, []byte, error) {
		nothing, err := cid.Cast([]byte("\x01\x55\x00\x00"))
		if err != nil {
			return cid.Undef, nil, err
		}
		return towerOf(longCollection()+"/"+strings.Repeat("k", 500), layers, each, nothing, nil)
	})
}

// LongRecordKeys is a repo of one small record under long keys that share nearly all of
// their bytes: each takes little of the CAR, and much of an index.
func LongRecordKeys(records int) Behaviour {
	return heavy("long record keys", func() (cid.Cid, []byte, error) { return named(longRecordKey, records, 10, false) })
}

// OwnLongRecordKeys is a repo of small records of their own under keys of so many bytes
// and a few more.
func OwnLongRecordKeys(records, bytes int) Behaviour {
	return heavy("own long record keys", func() (cid.Cid, []byte, error) {
		return named(sandbox.NoteCollection.String()+"/"+strings.Repeat("k", bytes), records, 10, true)
	})
}

// longRecordKey begins keys that are nearly as long as they may be.
var longRecordKey = sandbox.NoteCollection.String() + "/" + strings.Repeat("k", 500) //nolint:gochecknoglobals // it is never changed

// NamedOften is a repo in which many keys name one record of so many bytes.
func NamedOften(records, size int) Behaviour {
	name := "small record named often"
	if size > 1<<10 {
		name = "large record named often"
	}
	return heavy(name, func() (cid.Cid, []byte, error) {
		return named(sandbox.NoteCollection.String()+"/k", records, size, false)
	})
}

// named is a repo of many keys on one layer, with one record for all, or one for each.
func named(beginning string, records, size int, own bool) (cid.Cid, []byte, error) {
	var blocks []byte
	value := func(n int) (cid.Cid, error) {
		e, err := sandbox.MakeEntry("", sandbox.NoteCollection, "", map[string]any{
			"$type": sandbox.NoteCollection.String(), "text": strings.Repeat("x", size), "n": int64(n),
		})
		if err != nil {
			return cid.Undef, err
		}
		blocks = appendBlock(blocks, e.CID, e.Block)
		return e.CID, nil
	}
	all, err := value(0)
	if err != nil {
		return cid.Undef, nil, err
	}
	entries := entriesOn(0, beginning, records, all)
	for i := range entries {
		if !own {
			break
		}
		if entries[i].Value, err = value(i); err != nil {
			return cid.Undef, nil, err
		}
	}
	data := encodeNode(nil, entries)
	root, err := encode.CID(data)
	return root, appendBlock(blocks, root, data), err
}

// TinyBlocks is an empty repo with as many small blocks beside it as fit into so many bytes.
func TinyBlocks(size int) Behaviour {
	return heavy("tiny blocks", func() (cid.Cid, []byte, error) {
		return filled(size, func(n int) []byte { return strconv.AppendInt(nil, int64(n), 36) })
	})
}

// LargeCAR is an empty repo with large blocks beside it.
func LargeCAR(size int) Behaviour {
	return heavy("large car", func() (cid.Cid, []byte, error) {
		return filled(size, func(n int) []byte { return bytes.Repeat([]byte(strconv.Itoa(n)), 100_000) })
	})
}

// filled is an empty repo and so many bytes of blocks that nothing names.
func filled(size int, block func(n int) []byte) (cid.Cid, []byte, error) {
	root, blocks, err := towerOf("", 0, 0, cid.Undef, make([]byte, 0, size))
	for n := 0; err == nil && len(blocks) < size; n++ {
		data := block(n)
		var id cid.Cid
		if id, err = encode.CID(data); err == nil {
			blocks = appendBlock(blocks, id, data)
		}
	}
	return root, blocks, err
}

// towerOf is a tree with one node on each layer, whose keys all name one record.
func towerOf(beginning string, layers, each int, value cid.Cid, blocks []byte) (cid.Cid, []byte, error) {
	data := encodeNode(nil, nil)
	root, err := encode.CID(data)
	if layers == 0 {
		return root, appendBlock(blocks, root, data), err
	}
	var below *cid.Cid
	for layer := range layers {
		data := encodeNode(below, entriesOn(layer, beginning+string(rune('a'+layer)), each, value))
		if root, err = encode.CID(data); err != nil {
			return cid.Undef, nil, err
		}
		below, blocks = new(root), appendBlock(blocks, root, data)
	}
	return root, blocks, nil
}

// encodeNode writes a node of any number of entries; the library stops at 8,192.
func encodeNode(left *cid.Cid, entries []mst.EntryData) []byte {
	b := appendHead([]byte("\xa2\x61e"), 4, uint64(len(entries)))
	for _, e := range entries {
		b = append(appendHead(append(b, "\xa4\x61k"...), 2, uint64(len(e.KeySuffix))), e.KeySuffix...)
		b = appendHead(append(b, "\x61p"...), 0, uint64(e.PrefixLen))
		b = appendLink(append(b, "\x61t"...), e.Right)
		b = appendLink(append(b, "\x61v"...), &e.Value)
	}
	return appendLink(append(b, "\x61l"...), left)
}

// appendLink writes a link, or null.
func appendLink(b []byte, id *cid.Cid) []byte {
	if id == nil {
		return append(b, 0xf6)
	}
	b = appendHead(append(b, 0xd8, 0x2a), 2, uint64(id.ByteLen()+1))
	return append(append(b, 0), id.Bytes()...)
}

// appendHead writes the first bytes of a value of DAG-CBOR: its kind and its length.
func appendHead(b []byte, major byte, n uint64) []byte {
	switch {
	case n < 24:
		return append(b, major<<5|byte(n))
	case n < 1<<8:
		return append(b, major<<5|24, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, major<<5|25), uint16(n))
	default:
		return binary.BigEndian.AppendUint32(append(b, major<<5|26), uint32(n))
	}
}

// entriesOn are entries of a node whose keys have a beginning and lie on a layer.
func entriesOn(layer int, beginning string, n int, value cid.Cid) (list []mst.EntryData) {
	const digits = "0123456789abcdefghijklmnopqrstuvwxyz"
	begun := sha256.New()
	_, _ = begun.Write([]byte(beginning)) // it never fails
	cloner, _ := begun.(hash.Cloner)
	counter, last := []byte("0000000"), []byte("")
	for len(list) < n {
		for i := len(counter) - 1; ; i-- {
			if at := strings.IndexByte(digits, counter[i]); at < len(digits)-1 {
				counter[i] = digits[at+1]
				break
			}
			counter[i] = digits[0]
		}
		if layerOf(cloner, counter) != layer {
			continue
		}
		key := append([]byte(beginning), counter...)
		shared := mst.CountPrefixLen(last, key)
		list = append(list, mst.EntryData{PrefixLen: int64(shared), KeySuffix: key[shared:], Value: value})
		last = key
	}
	return list
}

// layerOf is the layer of a key whose beginning was hashed.
func layerOf(begun hash.Cloner, rest []byte) int {
	h, err := begun.Clone()
	if err != nil {
		return -1
	}
	_, _ = h.Write(rest) // it never fails
	var sum [sha256.Size]byte
	h.Sum(sum[:0])
	zeros := 0
	for _, b := range sum {
		for shift := 6; shift >= 0; shift -= 2 {
			if b>>shift&3 != 0 {
				return zeros
			}
			zeros++
		}
	}
	return zeros
}
