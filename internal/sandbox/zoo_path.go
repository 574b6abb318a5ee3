package sandbox

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/bluesky-social/indigo/atproto/repo/mst"
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
		path: NoteCollection.String() + "/2222222222222", block: []byte("\xa2\x61a\x00\x61a\x01"), value: `{"a":0,"a":1}`,
	})
}

func withStrays(name string, strays ...stray) Behaviour {
	cars := onCAR(func(_ *World, a *account, c *carBlocks) {
		if blocks, ok := a.strayBlocks(strays); ok {
			*c = blocks
		}
	})
	proofs := onProof(func(a *account, path string) ([]byte, bool) {
		i := slices.IndexFunc(strays, func(s stray) bool { return s.path == path })
		h, blocks, ok := a.strayHead(strays)
		if i < 0 || !ok {
			return nil, false
		}
		way, err := h.lead([]block{h.blocks[len(h.blocks)-1]}, []byte(path))
		return appendCAR(nil, h.cid, append(way, blocks[i])), err == nil
	})
	pages := onPages(func(_ *World, r Request, l *listedPage) {
		for _, s := range strays {
			if r.Cursor == "" && s.collection() == r.Collection.String() {
				l.Records = append(l.Records, s.item(r.DID))
			}
		}
	})
	descriptions := on(sound(func(a Answer) Answer { a.Body = describeStrays(a.Body, strays); return a }), methodDescribeRepo)
	return Behaviour{
		Name: name, Listed: failed("rejected"), Whole: failed("rejected"),
		fault: func(w *World, r Request) Fault {
			switch r.Method {
			case methodGetRepo:
				return cars(w, r)
			case methodGetProof:
				return proofs(w, r)
			case methodListRecords:
				return pages(w, r)
			default:
				return descriptions(w, r)
			}
		},
	}
}

// item is the entry as listRecords sends it.
func (s stray) item(did string) json.RawMessage {
	c, err := cidOf(s.block)
	if err != nil {
		return json.RawMessage("null")
	}
	b := appendString([]byte(`{"uri":`), "at://"+did+"/"+s.path)
	return fmt.Appendf(b, `,"cid":%q,"value":%s}`, c, s.value)
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
func (a *account) strayBlocks(strays []stray) (c carBlocks, ok bool) {
	h, blocks, ok := a.strayHead(strays)
	if !ok {
		return c, false
	}
	a.mu.RLock()
	for _, s := range a.shelves {
		for _, r := range s.records {
			blocks = append(blocks, block{r.cid, r.block})
		}
	}
	a.mu.RUnlock()
	for _, b := range append(blocks, h.blocks...) {
		c.blocks = append(c.blocks, slices.Concat(b.cid.Bytes(), b.data))
	}
	slices.SortFunc(c.blocks, bytes.Compare)
	c.blocks = slices.CompactFunc(c.blocks, bytes.Equal)
	c.header = appendCARHeader(nil, h.cid)
	return c, true
}

// strayHead is the commit of the repo with strays in its tree, and their blocks.
func (a *account) strayHead(strays []stray) (h *head, blocks []block, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	tree, err := a.tree()
	if err != nil {
		return nil, nil, false
	}
	for _, s := range strays {
		id, err := cidOf(s.block)
		if err != nil {
			return nil, nil, false
		}
		blocks = append(blocks, block{id, s.block})
		if _, err := tree.Insert([]byte(s.path), id); err != nil {
			// Of no length that a key may have: it has no place in a sound tree.
			tree.Root.Entries = append(tree.Root.Entries, mst.NodeEntry{Key: []byte(s.path), Value: &id, Dirty: true})
			tree.Root.Dirty = true
		}
	}
	h, err = a.headOver(tree)
	return h, blocks, err == nil
}
