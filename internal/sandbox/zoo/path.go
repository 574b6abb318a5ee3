package zoo

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/sandbox"
	"appview/internal/sandbox/encode"
)

func pathZoo() []Behaviour {
	return []Behaviour{
		StrayPaths("..", "com.EXAMPLE.note/upper", "com.example.no_te/underscore", "com.example.note", "com.example.note/", "com.example.note/a b", "com.example.note/a/b"),
		DuplicateKey(),
	}
}

// stray is an entry of a repo's tree that no record should be.
type stray struct {
	path  string // the key in the tree
	block []byte // DAG-CBOR
	value string // the block as JSON
}

// collection is what a host takes for the collection of the entry.
func (s stray) collection() string {
	collection, _, _ := strings.Cut(s.path, "/")
	return collection
}

// StrayPaths has records under keys that may be no record's path, beside the sound
// ones, in every answer that a host with such keys would give: signed into the tree, on
// the first page of the collection in front of the first slash, and with that
// collection in the description of the repo.
func StrayPaths(paths ...string) Behaviour {
	var strays []stray
	for i, path := range paths {
		n := byte(i % 24)
		strays = append(strays, stray{path: path, block: []byte{0xa1, 0x61, 'n', n}, value: fmt.Sprintf(`{"n":%d}`, n)})
	}
	return withStrays("stray paths", strays...)
}

// DuplicateKey has a record whose block, properly hashed, has a key twice in a map: it
// says two things.
func DuplicateKey() Behaviour {
	return withStrays("duplicate key", stray{
		path: sandbox.NoteCollection.String() + "/2222222222222", block: []byte("\xa2\x61a\x00\x61a\x01"), value: `{"a":0,"a":1}`,
	})
}

func withStrays(name string, strays ...stray) Behaviour {
	cars := onCAR(func(w *sandbox.World, did syntax.DID, c *carBlocks) {
		if blocks, ok := strayBlocks(w, did, strays); ok {
			*c = blocks
		}
	})
	proofs := onProof(func(w *sandbox.World, did syntax.DID, path string) ([]byte, bool) {
		i := slices.IndexFunc(strays, func(s stray) bool { return s.path == path })
		h, blocks, _, ok := strayHead(w, did, strays)
		if i < 0 || !ok {
			return nil, false
		}
		way, err := h.Lead([]encode.Block{h.Blocks[len(h.Blocks)-1]}, []byte(path))
		return encode.CAR(nil, h.CID, append(way, blocks[i])), err == nil
	})
	pages := onPages(func(_ *sandbox.World, r sandbox.Request, l *listedPage) {
		for _, s := range strays {
			if r.Cursor == "" && s.collection() == r.Collection.String() {
				l.Records = append(l.Records, s.item(r.DID))
			}
		}
	})
	descriptions := on(sound(func(a sandbox.Answer) sandbox.Answer { a.Body = describeStrays(a.Body, strays); return a }), sandbox.MethodDescribeRepo)
	return Behaviour{
		Name: name, Listed: failed("rejected"), Whole: failed("rejected"),
		fault: func(w *sandbox.World, r sandbox.Request) sandbox.Fault {
			switch r.Method {
			case sandbox.MethodGetRepo:
				return cars(w, r)
			case sandbox.MethodGetProof:
				return proofs(w, r)
			case sandbox.MethodListRecords:
				return pages(w, r)
			default:
				return descriptions(w, r)
			}
		},
	}
}

// onProof answers a request for a proof otherwise, where change has something else.
func onProof(change func(w *sandbox.World, did syntax.DID, path string) ([]byte, bool)) func(*sandbox.World, sandbox.Request) sandbox.Fault {
	return func(w *sandbox.World, r sandbox.Request) sandbox.Fault {
		if !isRepo(w, r) {
			return sandbox.Fault{}
		}
		return on(sound(func(answer sandbox.Answer) sandbox.Answer {
			if body, ok := change(w, syntax.DID(r.DID), r.Collection.String()+"/"+r.RKey); ok {
				answer.Body = body
			}
			return answer
		}), sandbox.MethodGetProof)(w, r)
	}
}

// item is the entry as listRecords sends it.
func (s stray) item(did string) json.RawMessage {
	c, err := encode.CID(s.block)
	if err != nil {
		return json.RawMessage("null")
	}
	uri, err := json.Marshal("at://" + did + "/" + s.path)
	if err != nil {
		return json.RawMessage("null")
	}
	return fmt.Appendf(nil, `{"uri":%s,"cid":%q,"value":%s}`, uri, c, s.value)
}

// describeStrays adds the collections of strays to the description of a repo.
func describeStrays(body []byte, strays []stray) []byte {
	var d map[string]json.RawMessage
	var names []string
	if json.Unmarshal(body, &d) != nil || json.Unmarshal(d["collections"], &names) != nil {
		return body
	}
	for _, s := range strays {
		if name := s.collection(); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	var err error
	if d["collections"], err = json.Marshal(names); err != nil {
		return body
	}
	changed, err := json.Marshal(d)
	if err != nil {
		return body
	}
	return changed
}

// strayBlocks is the repo's CAR with strays in its tree.
func strayBlocks(w *sandbox.World, did syntax.DID, strays []stray) (c carBlocks, ok bool) {
	h, blocks, records, ok := strayHead(w, did, strays)
	if !ok {
		return c, false
	}
	for _, b := range slices.Concat(blocks, records, h.Blocks) {
		c.blocks = append(c.blocks, slices.Concat(b.CID.Bytes(), b.Data))
	}
	slices.SortFunc(c.blocks, bytes.Compare)
	c.blocks = slices.CompactFunc(c.blocks, bytes.Equal)
	c.header = encode.CARHeader(nil, h.CID)
	return c, true
}

// strayHead is the commit of the repo with strays in its tree, their blocks, and those of
// the records.
func strayHead(w *sandbox.World, did syntax.DID, strays []stray) (h *sandbox.Head, blocks, records []encode.Block, ok bool) {
	h, records, err := w.HeadOver(did, func(tree *mst.Tree) error {
		for _, s := range strays {
			id, err := encode.CID(s.block)
			if err != nil {
				return err
			}
			blocks = append(blocks, encode.Block{CID: id, Data: s.block})
			if _, err := tree.Insert([]byte(s.path), id); err != nil {
				// Of no length that a key may have: it has no place in a sound tree.
				tree.Root.Entries = append(tree.Root.Entries, mst.NodeEntry{Key: []byte(s.path), Value: &id, Dirty: true})
				tree.Root.Dirty = true
			}
		}
		return nil
	})
	return h, blocks, records, err == nil
}
