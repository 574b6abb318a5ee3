package zoo

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/repo"
	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/sandbox"
	"appview/internal/sandbox/encode"
)

func carZoo() []Behaviour {
	return []Behaviour{WrongKey(), MissingNode(), MissingRecord(), CutBetweenBlocks(), CutCAR(), FlippedBit(), AnotherRepo(), ReorderedCAR()}
}

// onCAR changes the blocks of every CAR. The commit is where the root says.
func onCAR(change func(w *sandbox.World, did syntax.DID, c *carBlocks)) func(*sandbox.World, sandbox.Request) sandbox.Fault {
	return func(w *sandbox.World, r sandbox.Request) sandbox.Fault {
		did := syntax.DID(r.DID)
		if !isRepo(w, r) {
			return sandbox.Fault{}
		}
		return on(sound(func(answer sandbox.Answer) sandbox.Answer {
			if c, ok := splitCAR(answer.Body); ok {
				change(w, did, &c)
				answer.Body = c.join()
			}
			return answer
		}), sandbox.MethodGetRepo)(w, r)
	}
}

// isRepo reports whether a request to a host is about a repo that there is.
func isRepo(w *sandbox.World, r sandbox.Request) bool {
	_, err := w.Repo(syntax.DID(r.DID))
	return err == nil && r.Part == sandbox.PartPDS
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
	return Behaviour{Name: "wrong key", Whole: failed("bad_signature"), fault: onCAR(func(w *sandbox.World, did syntax.DID, c *carBlocks) {
		commit, err := commitOf(w, did)
		if err != nil {
			return
		}
		key, err := atcrypto.GeneratePrivateKeyK256()
		if err != nil {
			return
		}
		if signed, err := sandbox.SignCommit(commit, key); err == nil {
			c.setRoot(signed)
		}
	})}
}

// commitOf is the current commit of a repo.
func commitOf(w *sandbox.World, did syntax.DID) (commit repo.Commit, err error) {
	h, err := w.Head(did)
	if err != nil {
		return commit, err
	}
	return commit, commit.UnmarshalCBOR(bytes.NewReader(h.Commit()))
}

// setRoot makes a commit the root of the CAR.
func (c *carBlocks) setRoot(commit encode.Block) {
	c.header = encode.CARHeader(nil, commit.CID)
	c.blocks = append(c.blocks, slices.Concat(commit.CID.Bytes(), commit.Data))
}

// MissingNode leaves out the top of the tree.
func MissingNode() Behaviour {
	return Behaviour{Name: "missing node", fault: onCAR(func(w *sandbox.World, did syntax.DID, c *carBlocks) {
		if h, err := w.Head(did); err == nil {
			c.drop(h.Root().Bytes())
		}
	})}
}

// MissingRecord leaves out a record.
func MissingRecord() Behaviour {
	return Behaviour{Name: "missing record", fault: onCAR(func(w *sandbox.World, did syntax.DID, c *carBlocks) {
		for _, collection := range w.Collections(did) {
			c.drop(w.Entries(did, collection)[0].CID.Bytes())
			return
		}
	})}
}

// CutBetweenBlocks ends every CAR after half of its blocks, as if that were all.
func CutBetweenBlocks() Behaviour {
	return Behaviour{Name: "cut between blocks", fault: onCAR(func(_ *sandbox.World, _ syntax.DID, c *carBlocks) {
		c.blocks = c.blocks[:len(c.blocks)/2]
	})}
}

// CutCAR breaks the connection in every CAR.
func CutCAR() Behaviour {
	return Behaviour{Name: "cut car", fault: on(sandbox.Fault{Cut: true, CutAfter: 100}, sandbox.MethodGetRepo)}
}

// FlippedBit changes one bit of one block.
func FlippedBit() Behaviour {
	return Behaviour{Name: "flipped bit", fault: on(sound(func(a sandbox.Answer) sandbox.Answer {
		if len(a.Body) > 0 {
			a.Body[len(a.Body)-1] ^= 1
		}
		return a
	}), sandbox.MethodGetRepo)}
}

// AnotherRepo sends the CAR of another repo, sound in itself.
func AnotherRepo() Behaviour {
	return Behaviour{Name: "another repo", fault: func(w *sandbox.World, r sandbox.Request) sandbox.Fault {
		return on(sound(func(a sandbox.Answer) sandbox.Answer {
			for _, other := range w.Repos() {
				if other.DID != syntax.DID(r.DID) && other.Status == sandbox.StatusActive {
					if b, err := w.CAR(other.DID); err == nil {
						a.Body = b
						return a
					}
				}
			}
			a.Body = nil
			return a
		}), sandbox.MethodGetRepo)(w, r)
	}}
}

// ReorderedCAR sends the blocks the other way round, which is allowed.
func ReorderedCAR() Behaviour {
	return Behaviour{Name: "reordered car", fault: onCAR(func(_ *sandbox.World, _ syntax.DID, c *carBlocks) { slices.Reverse(c.blocks) })}
}
