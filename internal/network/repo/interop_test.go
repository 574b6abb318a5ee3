package repo

import (
	"bytes"
	"crypto/elliptic"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/repo"
	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multibase"

	"appview/internal/network/outcome"
	"appview/internal/network/repo/repotest"
	"appview/internal/record"
	"appview/internal/sandbox/sandboxtest/interop"
)

// interopKeys are private keys and the DIDs of their public ones.
func interopKeys(t *testing.T) map[string]atcrypto.PrivateKey {
	t.Helper()
	keys := map[string]atcrypto.PrivateKey{}
	var fixtures []struct{ PrivateKeyBytesHex, PrivateKeyBytesBase58, PublicDIDKey string }
	for _, name := range []string{"crypto/w3c_didkey_K256.json", "crypto/w3c_didkey_P256.json"} {
		fixtures = nil
		interop.JSON(t, name, &fixtures)
		for _, f := range fixtures {
			var key atcrypto.PrivateKey
			raw, err := hex.DecodeString(f.PrivateKeyBytesHex)
			if err == nil && len(raw) > 0 {
				key, err = atcrypto.ParsePrivateBytesK256(raw)
			} else if _, raw, err = multibase.Decode("z" + f.PrivateKeyBytesBase58); err == nil {
				key, err = atcrypto.ParsePrivateBytesP256(raw)
			}
			if err != nil {
				t.Fatal(err)
			}
			keys[f.PublicDIDKey] = key
		}
	}
	return keys
}

// TestInteropKeysSignRepos has repos signed with the keys of the fixtures, and their
// signatures spelt as the signature fixtures have them: from the other half of the curve,
// and as DER, both are refused.
func TestInteropKeysSignRepos(t *testing.T) {
	t.Parallel()
	for did, key := range interopKeys(t) {
		for spelling, want := range map[string]outcome.Reason{"": "", "high-s": outcome.ReasonBadSignature, "der-encoded": outcome.ReasonBadSignature} {
			m := repotest.New(t)
			m.Key = key
			id := m.Commit(m.Node("", repotest.Leaf{Key: repotest.FirstKey("com.example.note"), Value: m.Value(1)}), nil)
			block := m.Blocks[len(m.Blocks)-1][1]
			m.Drop(id)
			public, err := atcrypto.ParsePublicDIDKey(did)
			if err != nil {
				t.Fatal(err)
			}
			r, err := open(t.Context(), m.CAR(m.Put(respell(t, key, block, spelling))), Account{DID: repotest.DID, Key: public, Now: time.Now()})
			wantOutcome(t, r, err, want)
		}
	}
}

// orderK256 is the number of points of the curve of K-256 keys.
const orderK256 = "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141"

// respell spells the signature of a commit in another way that says the same.
func respell(t *testing.T, key atcrypto.PrivateKey, block, spelling string) string {
	t.Helper()
	var commit repo.Commit
	if err := commit.UnmarshalCBOR(strings.NewReader(block)); err != nil {
		t.Fatal(err)
	}
	half := len(commit.Sig) / 2
	r, s := new(big.Int).SetBytes(commit.Sig[:half]), new(big.Int).SetBytes(commit.Sig[half:])
	switch spelling {
	case "high-s":
		order, _ := new(big.Int).SetString(orderK256, 16)
		if _, is := key.(*atcrypto.PrivateKeyP256); is {
			order = elliptic.P256().Params().N
		}
		commit.Sig = append(bytes.Clone(commit.Sig[:half]), s.Sub(order, s).FillBytes(make([]byte, half))...)
	case "der-encoded":
		der, err := asn1.Marshal(struct{ R, S *big.Int }{r, s})
		if err != nil {
			t.Fatal(err)
		}
		commit.Sig = der
	default:
		return block
	}
	var b bytes.Buffer
	if err := commit.MarshalCBOR(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// interopTree is a tree of keys that all have one value, of which nobody knows the block, as
// the library of the reference implementation builds it.
func interopTree(t *testing.T, value cid.Cid, keys ...string) (root cid.Cid, c *CAR) {
	t.Helper()
	tree := mst.NewEmptyTree()
	for _, key := range keys {
		if _, err := tree.Insert([]byte(key), value); err != nil {
			t.Fatal(err)
		}
	}
	id, err := tree.RootCID()
	if err != nil {
		t.Fatal(err)
	}
	c = &CAR{received: int64(64 * len(keys)), blocks: blocks{grow: free}}
	var add func(n *mst.Node)
	add = func(n *mst.Node) {
		for _, e := range n.Entries {
			if e.Child != nil {
				add(e.Child)
			}
		}
		data := n.NodeData()
		block, id, err := data.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		addBlock(t, c, *id, block)
	}
	add(tree.Root)
	addBlock(t, c, value, []byte("unknown"))
	if err := c.buildIndex(); err != nil {
		t.Fatal(err)
	}
	return *id, c
}

// addBlock puts a block into a CAR, whatever its hash.
func addBlock(t *testing.T, c *CAR, id cid.Cid, block []byte) {
	t.Helper()
	name, ok := digestOf(id.Bytes())
	if !ok {
		t.Fatalf("%s names no block", id)
	}
	if err := errors.Join(c.beginBlock(name, uint32(len(block))), c.appendBytes(block)); err != nil {
		t.Fatal(err)
	}
}

// wantTree wants a tree to be found sound, with so many keys.
func wantTree(t *testing.T, root cid.Cid, c *CAR, keys int) {
	t.Helper()
	v := verifier{tree: tree{car: c}}
	if err := v.verifyTree(t.Context(), root.Bytes()); err != nil || v.entries != keys {
		t.Errorf("%s: %d keys, %v, want %d", root, v.entries, err, keys)
	}
}

func TestInteropTrees(t *testing.T) {
	t.Parallel()
	var fixtures []struct {
		Comment, LeafValue, RootBeforeCommit, RootAfterCommit string
		Keys, Adds, Dels                                      []string
	}
	interop.JSON(t, "mst/commit-proof-fixtures.json", &fixtures)
	for _, f := range fixtures {
		value, err := cid.Decode(f.LeafValue)
		if err != nil {
			t.Fatal(err)
		}
		after := slices.DeleteFunc(slices.Concat(f.Keys, f.Adds), func(k string) bool { return slices.Contains(f.Dels, k) })
		for want, keys := range map[string][]string{f.RootBeforeCommit: f.Keys, f.RootAfterCommit: after} {
			root, c := interopTree(t, value, keys...)
			if root.String() != want {
				t.Errorf("%s: root %s, want %s", f.Comment, root, want)
			}
			wantTree(t, root, c, len(keys))
		}
	}
	// The number in the name of an example is the layer on which it lies.
	value, err := cid.Decode(fixtures[0].LeafValue)
	if err != nil {
		t.Fatal(err)
	}
	keys := interop.Lines(t, "mst/example_keys.txt")
	root, c := interopTree(t, value, keys...)
	wantTree(t, root, c, len(keys))
	for _, key := range keys {
		root, c := interopTree(t, value, key)
		n, err := (&tree{car: c}).open(t.Context(), 0, root.Bytes())
		if err != nil || n.layer != int(key[1]-'0') {
			t.Errorf("%s lies on layer %d, %v", key, n.layer, err)
		}
	}
}

// interopCAR reads a CAR whose hashes are right, and its commit.
func interopCAR(t *testing.T, body []byte) (*CAR, *repo.Commit) {
	t.Helper()
	c, err := receive(body)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	commit, err := decodeCommit(blockOf(t, c, c.root))
	if err != nil {
		t.Fatal(err)
	}
	return c, commit
}

// blockOf is the content of a block.
func blockOf(t *testing.T, c *CAR, name digest) []byte {
	t.Helper()
	f, there, err := c.find(name)
	if err != nil || !there {
		t.Fatalf("block %x: there %t, %v", name, there, err)
	}
	data, err := c.read(f, make([]byte, f.size))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestInteropCARs(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]struct {
		blocks, entries int // no entries: the tree is not whole
		reason          outcome.Reason
	}{
		"greenground.repo.car": {4, 2, outcome.ReasonBadSignature}, // the fixture has no key for it
		"divy.repo":            {9, 0, outcome.ReasonBadAnswer},    // version 2
		"repo_slice.car":       {5, 0, outcome.ReasonBadAnswer},    // likewise
		"bafyreieovfuizojpw3zresz7sx3nk4trm2by23pt5rxbey3jme4uo5ogiu.car": {10, 0, outcome.ReasonBadAnswer}, // likewise
	} {
		body := interop.File(t, "car/"+name)
		c, commit := interopCAR(t, body)
		if c.count != want.blocks {
			t.Errorf("%s: %d blocks", name, c.count)
		}
		whose := account(repotest.New(t))
		whose.DID = syntax.DID(commit.DID)
		r, err := open(t.Context(), string(body), whose)
		wantOutcome(t, r, err, want.reason)
		if want.entries > 0 {
			wantTree(t, commit.Data, c, want.entries)
		}
	}
}

// TestInteropCommits reads the blocks of events of the network: the records are those that
// the operations name, and the tree is sound as far as it is sent.
func TestInteropCommits(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"4621317030", "4621317332", "4621332152", "4623075231"} {
		var event struct {
			Repo, Rev string
			Blocks    struct {
				Bytes string `json:"$bytes"`
			}
			Ops []struct {
				Path string
				CID  struct {
					Link string `json:"$link"`
				}
			}
		}
		interop.JSON(t, "car/firehose_commit_"+name+".json", &event)
		body, err := base64.RawStdEncoding.DecodeString(event.Blocks.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		c, commit := interopCAR(t, body)
		if commit.DID != event.Repo || commit.Rev != event.Rev || len(event.Ops) == 0 {
			t.Fatalf("%s: %+v", name, commit)
		}
		for _, op := range event.Ops {
			id, err := cid.Decode(op.CID.Link)
			if err != nil {
				t.Fatal(err)
			}
			name, _ := digestOf(id.Bytes())
			if body, err := record.FromCBOR(blockOf(t, c, name), id); err != nil || !body.Verified {
				t.Errorf("%s: %s: %+v, %v", name, op.Path, body, err)
			}
			var paths paths
			if err := paths.add([]byte(op.Path), free); err != nil || len(paths.collections) != 1 {
				t.Errorf("%s: %s is no path", name, op.Path)
			}
		}
		v := verifier{tree: tree{car: c}}
		if err := v.verifyTree(t.Context(), commit.Data.Bytes()); err != nil {
			if bad, is := errors.AsType[*outcome.BadContent](err); !is || bad.Reason != outcome.ReasonIncomplete {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// TestInteropPaths has repos' paths made of the names of collections and the record keys of
// the fixtures.
func TestInteropPaths(t *testing.T) {
	t.Parallel()
	for file, path := range map[string]string{"nsid": "%/self", "recordkey": "com.example.note/%"} {
		for spelling, valid := range map[string]bool{"valid": true, "invalid": false} {
			for _, line := range interop.Lines(t, "syntax/"+file+"_syntax_"+spelling+".txt") {
				var paths paths
				if err := paths.add([]byte(strings.Replace(path, "%", line, 1)), free); err != nil || (len(paths.collections) == 1) != valid {
					t.Errorf("%s %q: taken %t, %v", file, line, !valid, err)
				}
			}
		}
	}
}

func TestInteropRevs(t *testing.T) {
	t.Parallel()
	for spelling, valid := range map[string]bool{"valid": true, "invalid": false} {
		for _, line := range interop.Lines(t, "syntax/tid_syntax_"+spelling+".txt") {
			_, err := ParseRev(line, time.Now())
			if (err == nil) != valid && !interop.Disagrees("tid", line) {
				t.Errorf("%q: %v", line, err)
			}
		}
	}
}
