package network

import (
	"bytes"
	"crypto/elliptic"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/repo"
	"github.com/bluesky-social/indigo/atproto/repo/mst"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multibase"

	"appview/record"
	"appview/sandbox/sandboxtest/interop"
)

// documentOf is a DID document with one key.
func documentOf(did syntax.DID, suite, key string) []byte {
	return []byte(`{"id":"` + did.String() + `","verificationMethod":[{"id":"#atproto","type":"` + suite + `","controller":"` + did.String() +
		`","publicKeyMultibase":"` + key + `"}]}`)
}

// keyOf reads the key of a DID document.
func keyOf(t *testing.T, did syntax.DID, document []byte) atcrypto.PublicKey {
	t.Helper()
	doc, err := readDocument(document, did)
	if err != nil {
		t.Fatal(err)
	}
	key, err := doc.key.parse()
	if err != nil {
		t.Fatalf("%s: %v", document, err)
	}
	return key
}

func TestInteropSignatures(t *testing.T) {
	t.Parallel()
	var fixtures []struct {
		Comment, MessageBase64, DIDDocSuite, PublicKeyDID, PublicKeyMultibase, SignatureBase64 string
		ValidSignature                                                                         bool
	}
	interop.JSON(t, "crypto/signature-fixtures.json", &fixtures)
	for _, f := range fixtures {
		multikey := strings.TrimPrefix(f.PublicKeyDID, "did:key:")
		key := keyOf(t, alice, documentOf(alice, suiteMultikey, multikey))
		if older := keyOf(t, alice, documentOf(alice, f.DIDDocSuite, f.PublicKeyMultibase)); !older.Equal(key) || key.DIDKey() != f.PublicKeyDID {
			t.Errorf("%s: read as %s and %s", f.Comment, key.DIDKey(), older.DIDKey())
		}
		message, err := base64.RawStdEncoding.DecodeString(f.MessageBase64)
		if err != nil {
			t.Fatal(err)
		}
		sig, err := base64.RawStdEncoding.DecodeString(f.SignatureBase64)
		if err != nil {
			t.Fatal(err)
		}
		if err := key.HashAndVerify(message, sig); (err == nil) != f.ValidSignature {
			t.Errorf("%s: %v", f.Comment, err)
		}
	}
}

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
		for spelling, want := range map[string]Reason{"": "", "high-s": ReasonBadSignature, "der-encoded": ReasonBadSignature} {
			m := newCARMaker(t)
			m.key = key
			id := m.commit(m.node("", leaf{key: low0("com.example.note"), value: m.value(1)}), nil)
			block := m.blocks[len(m.blocks)-1][1]
			m.drop(id)
			client := newClient(t, Config{})
			r, err := client.Repo(t.Context(), serveCAR(t, m.car(m.put(respell(t, key, block, spelling)))), Identity{
				DID: alice, key: signingKey{found: true, suite: suiteMultikey, text: strings.TrimPrefix(did, "did:key:")},
			})
			if got := reasonOf(err); got != string(want) {
				t.Errorf("%s, %s: %v, want %q", did, spelling, err, want)
			}
			if err == nil {
				r.Close()
			}
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

// TestInteropDocuments reads the DID documents of the fixtures, in the form of today and in
// the one before, which name one key.
func TestInteropDocuments(t *testing.T) {
	t.Parallel()
	const did = syntax.DID("did:plc:ewvi7nxzyoun6zhxrhs64oiz")
	today, before := interop.File(t, "identity/did_plc_doc.json"), interop.File(t, "identity/did_plc_doc_legacy.json")
	if a, b := keyOf(t, did, today), keyOf(t, did, before); !a.Equal(b) {
		t.Errorf("keys %s and %s", a.DIDKey(), b.DIDKey())
	}
	for name, document := range map[string][]byte{"today": today, "before": before} {
		c := newClient(t, Config{PLC: string(serve(t, says(http.StatusOK, "application/json", string(document))))})
		if ident, err := c.Lookup(t.Context(), did); err != nil || ident.PDS != "https://bsky.social" {
			t.Errorf("%s: %+v, %v", name, ident, err)
		}
	}
	const feed = syntax.DID("did:web:discover.bsky.social")
	doc, err := readDocument(interop.File(t, "identity/did_web_doc.json"), feed)
	if err != nil {
		t.Fatal(err)
	}
	_, err = newClient(t, Config{}).identity(feed, doc)
	wantReason(t, err, ReasonNoPDS)
}

// interopTree is a tree of keys that all have one value, of which nobody knows the block, as
// the library of the reference implementation builds it.
func interopTree(t *testing.T, value cid.Cid, keys ...string) (root cid.Cid, c *car) {
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
	c = &car{received: int64(64 * len(keys)), blocks: blocks{grow: free}}
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
	if err := c.index(); err != nil {
		t.Fatal(err)
	}
	return *id, c
}

// addBlock puts a block into a CAR, whatever its hash.
func addBlock(t *testing.T, c *car, id cid.Cid, block []byte) {
	t.Helper()
	name, ok := linked(id.Bytes())
	if !ok {
		t.Fatalf("%s names no block", id)
	}
	if err := errors.Join(c.add(name, uint32(len(block))), c.write(block)); err != nil {
		t.Fatal(err)
	}
}

// wantTree wants a tree to be found sound, with so many keys.
func wantTree(t *testing.T, root cid.Cid, c *car, keys int) {
	t.Helper()
	v := verifier{tree: tree{car: c}}
	if err := v.root(t.Context(), root.Bytes()); err != nil || v.entries != keys {
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
func interopCAR(t *testing.T, body []byte) (*car, *repo.Commit) {
	t.Helper()
	c, err := receive(body)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.close)
	commit, err := readCommit(blockOf(t, c, c.root))
	if err != nil {
		t.Fatal(err)
	}
	return c, commit
}

// blockOf is the content of a block.
func blockOf(t *testing.T, c *car, name digest) []byte {
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
		reason          Reason
	}{
		"greenground.repo.car": {4, 2, ReasonBadSignature}, // the fixture has no key for it
		"divy.repo":            {9, 0, ReasonBadAnswer},    // version 2
		"repo_slice.car":       {5, 0, ReasonBadAnswer},    // likewise
		"bafyreieovfuizojpw3zresz7sx3nk4trm2by23pt5rxbey3jme4uo5ogiu.car": {10, 0, ReasonBadAnswer}, // likewise
	} {
		body := interop.File(t, "car/"+name)
		c, commit := interopCAR(t, body)
		if c.count != want.blocks {
			t.Errorf("%s: %d blocks", name, c.count)
		}
		ident := newCARMaker(t).ident()
		ident.DID = syntax.DID(commit.DID)
		_, err := newClient(t, Config{}).Repo(t.Context(), serveCAR(t, string(body)), ident)
		wantReason(t, err, want.reason)
		if want.entries > 0 {
			wantTree(t, commit.Data, c, want.entries)
		}
	}
}

// free charges nothing.
func free(int64) error { return nil }

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
			name, _ := linked(id.Bytes())
			if body, err := record.FromCBOR(blockOf(t, c, name), id); err != nil || !body.Verified {
				t.Errorf("%s: %s: %+v, %v", name, op.Path, body, err)
			}
			var paths repoPaths
			if err := paths.add([]byte(op.Path), free); err != nil || len(paths.collections) != 1 {
				t.Errorf("%s: %s is no path", name, op.Path)
			}
		}
		v := verifier{tree: tree{car: c}}
		if err := v.root(t.Context(), commit.Data.Bytes()); err != nil {
			if bad, is := errors.AsType[*badCAR](err); !is || bad.reason != ReasonIncomplete {
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
				var paths repoPaths
				if err := paths.add([]byte(strings.Replace(path, "%", line, 1)), free); err != nil || (len(paths.collections) == 1) != valid {
					t.Errorf("%s %q: taken %t, %v", file, line, !valid, err)
				}
			}
		}
	}
}

func TestInteropRevs(t *testing.T) {
	t.Parallel()
	c := newClient(t, Config{})
	for spelling, valid := range map[string]bool{"valid": true, "invalid": false} {
		for _, line := range interop.Lines(t, "syntax/tid_syntax_"+spelling+".txt") {
			_, err := c.rev("rev", "https://a.test", line)
			if (err == nil) != valid && !interop.Disagrees("tid", line) {
				t.Errorf("%q: %v", line, err)
			}
		}
	}
}

// TestInteropDIDsOfARelay has a relay list every DID of the fixtures.
func TestInteropDIDsOfARelay(t *testing.T) {
	t.Parallel()
	valid, invalid := interop.Lines(t, "syntax/did_syntax_valid.txt"), interop.Lines(t, "syntax/did_syntax_invalid.txt")
	var repos []string
	for _, line := range slices.Concat(valid, invalid) {
		did, err := json.Marshal(line)
		if err != nil {
			t.Fatal(err)
		}
		repos = append(repos, `{"did":`+string(did)+`}`)
	}
	relay := serve(t, says(http.StatusOK, "application/json", `{"repos":[`+strings.Join(repos, ",")+`]}`))
	page, err := newClient(t, Config{Relay: string(relay)}).Repos(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, did := range page.DIDs {
		got = append(got, did.String())
	}
	if !slices.Equal(got, valid) || page.Invalid != len(invalid) {
		t.Errorf("listed %q, %d invalid, want %q", got, page.Invalid, valid)
	}
}
