package sandbox

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/bluesky-social/indigo/atproto/repo"
	"github.com/bluesky-social/indigo/atproto/syntax"
)

func carZoo() []Behaviour {
	return []Behaviour{WrongKey(), MissingNode(), MissingRecord(), CutBetweenBlocks(), CutCAR(), FlippedBit(), AnotherRepo(), ReorderedCAR()}
}

// onCAR changes the blocks of every CAR. The commit is where the root says.
func onCAR(change func(w *World, a *account, c *carBlocks)) func(*World, Request) Fault {
	return func(w *World, r Request) Fault {
		a := w.find(r.DID)
		if a == nil || r.Part != PartPDS {
			return Fault{}
		}
		return on(sound(func(answer Answer) Answer {
			if c, ok := splitCAR(answer.Body); ok {
				change(w, a, &c)
				answer.Body = c.join()
			}
			return answer
		}), methodGetRepo)(w, r)
	}
}

// carBlocks is a CAR in its parts.
type carBlocks struct {
	header []byte
	blocks [][]byte // CID and content
}

func splitCAR(body []byte) (c carBlocks, ok bool) {
	for len(body) > 0 {
		size, n := binary.Uvarint(body)
		if n <= 0 || size > uint64(len(body)-n) {
			return c, false
		}
		end := n + int(size)
		if c.header == nil {
			c.header = body[:end]
		} else {
			c.blocks = append(c.blocks, body[n:end])
		}
		body = body[end:]
	}
	return c, c.header != nil
}

func (c *carBlocks) join() []byte {
	b := bytes.Clone(c.header)
	for _, block := range c.blocks {
		b = append(binary.AppendUvarint(b, uint64(len(block))), block...)
	}
	return b
}

// drop takes the block with the CID out.
func (c *carBlocks) drop(id []byte) {
	c.blocks = slices.DeleteFunc(c.blocks, func(b []byte) bool { return bytes.HasPrefix(b, id) })
}

// WrongKey signs every commit with a key that is not the account's.
func WrongKey() Behaviour {
	return Behaviour{Name: "wrong key", Whole: failed("bad_signature"), fault: onCAR(func(_ *World, a *account, c *carBlocks) {
		h, err := a.currentHead()
		if err != nil {
			return
		}
		var commit repo.Commit
		if err := commit.UnmarshalCBOR(bytes.NewReader(h.commit())); err != nil {
			return
		}
		key, err := deriveKey(a.seed, a.number, -1)
		if err != nil {
			return
		}
		commit.Sig = nil
		var b bytes.Buffer
		if commit.Sign(key) != nil || commit.MarshalCBOR(&b) != nil {
			return
		}
		id, err := cidOf(b.Bytes())
		if err != nil {
			return
		}
		c.header = appendCARHeader(nil, id)
		c.blocks = append(c.blocks, append(bytes.Clone(id.Bytes()), b.Bytes()...))
	})}
}

// commit is the commit's block: the last one.
func (h *head) commit() []byte { return h.blocks[len(h.blocks)-1].data }

// MissingNode leaves out the top of the tree.
func MissingNode() Behaviour {
	return Behaviour{Name: "missing node", fault: onCAR(func(_ *World, a *account, c *carBlocks) {
		if h, err := a.currentHead(); err == nil {
			c.drop(h.blocks[len(h.blocks)-2].cid.Bytes())
		}
	})}
}

// MissingRecord leaves out a record.
func MissingRecord() Behaviour {
	return Behaviour{Name: "missing record", fault: onCAR(func(_ *World, a *account, c *carBlocks) {
		a.mu.RLock()
		defer a.mu.RUnlock()
		for _, collection := range a.collections() {
			c.drop(a.shelves[collection].records[0].cid.Bytes())
			return
		}
	})}
}

// CutBetweenBlocks ends every CAR after half of its blocks, as if that were all.
func CutBetweenBlocks() Behaviour {
	return Behaviour{Name: "cut between blocks", fault: onCAR(func(_ *World, _ *account, c *carBlocks) {
		c.blocks = c.blocks[:len(c.blocks)/2]
	})}
}

// CutCAR breaks the connection in every CAR.
func CutCAR() Behaviour {
	return Behaviour{Name: "cut car", fault: on(Fault{Cut: true, CutAfter: 100}, methodGetRepo)}
}

// FlippedBit changes one bit of one block.
func FlippedBit() Behaviour {
	return Behaviour{Name: "flipped bit", fault: on(sound(func(a Answer) Answer {
		if len(a.Body) > 0 {
			a.Body[len(a.Body)-1] ^= 1
		}
		return a
	}), methodGetRepo)}
}

// AnotherRepo sends the CAR of another repo, sound in itself.
func AnotherRepo() Behaviour {
	return Behaviour{Name: "another repo", fault: func(w *World, r Request) Fault {
		return on(sound(func(a Answer) Answer {
			for _, other := range w.accounts() {
				if other.did != syntax.DID(r.DID) && other.currentStatus() == StatusActive {
					if b, err := other.car(nil, ""); err == nil {
						a.Body = b
						return a
					}
				}
			}
			a.Body = nil
			return a
		}), methodGetRepo)(w, r)
	}}
}

// ReorderedCAR sends the blocks the other way round, which is allowed.
func ReorderedCAR() Behaviour {
	return Behaviour{Name: "reordered car", fault: onCAR(func(_ *World, _ *account, c *carBlocks) { slices.Reverse(c.blocks) })}
}
