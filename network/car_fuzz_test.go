package network

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net/http"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/sandbox"
	"appview/sandbox/sandboxtest"
)

// FuzzCAR reads anything as a repo. Whatever it is: no panic, no more memory than
// was asked for, and what was believed can be walked and is what it is named.
func FuzzCAR(f *testing.F) {
	w := sandboxtest.Start(f, sandbox.Config{Seed: 5, Hosts: 1, Repos: 6})
	for _, r := range w.Repos() {
		f.Add(getCAR(f, w, r.DID))
	}
	m := newCARMaker(f)
	f.Add([]byte(m.car(m.commit(m.node("", leaf{key: low0("com.example.thing"), value: m.value(1)}), nil))))
	f.Add([]byte(carHeader(idOf("x")) + frame(idOf("x")+"x")))
	key, err := m.ident().Key()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var asked int64
		c := &car{open: -1, grow: func(n int64) error {
			asked += n
			return nil
		}}
		if err := c.read(bufio.NewReader(bytes.NewReader(data))); err != nil {
			return
		}
		if c.held > freeBody && asked != c.held-freeBody || c.held > 4*int64(len(data))+firstChunk {
			t.Fatalf("%d bytes take %d, of which %d were asked for", len(data), c.held, asked)
		}
		root, kept, _ := c.find(c.root)
		if !kept {
			return
		}
		commit, err := readCommit(root)
		if err != nil {
			return
		}
		_ = signed(commit, key)
		// A fuzzer cannot sign, and finds no hash: the signature is left out, and
		// the tree is read anyway.
		v := verifier{car: c}
		if _, err := v.node(context.WithoutCancel(t.Context()), commit.Data.Bytes(), 0); err != nil {
			return
		}
		r := &Repo{car: c, tree: commit.Data.Bytes(), paths: v.paths}
		n := 0
		for _, collection := range r.Collections() {
			for rkey, b := range r.Records(collection) {
				n++
				if _, err := syntax.ParseRecordKey(rkey.String()); err != nil {
					t.Errorf("record key %q: %v", rkey, err)
				}
				if sum, err := b.CID.Prefix().Sum(b.Data); b.Data != nil && (err != nil || sum != b.CID) {
					t.Errorf("%s is not its block", b.CID)
				}
			}
		}
		if n != v.entries-r.Rejected().Count {
			t.Errorf("walked %d records of %d, %d rejected", n, v.entries, r.Rejected().Count)
		}
	})
}

// FuzzNode reads anything as a node of a tree, which a fuzzer of whole CARs
// cannot reach past the hashes.
func FuzzNode(f *testing.F) {
	f.Add([]byte(nodeBytes("")))
	f.Add([]byte(nodeBytes(idOf("l"), leaf{key: "a.b.c/d", value: idOf("v"), right: idOf("r")}, leaf{key: "e", prefix: 6, value: idOf("w")})))
	f.Add([]byte(nodeBytes("", leaf{key: "a", prefix: -1, value: "x"})))
	f.Fuzz(func(t *testing.T, data []byte) {
		n, err := openNode(data)
		if err != nil {
			return
		}
		want := n.count
		for _, ok := n.next(); ok; _, ok = n.next() {
			if want--; len(n.key) == 0 {
				t.Error("empty key")
			}
		}
		if want != 0 || n.entries.err != nil {
			t.Errorf("%d entries are left: %v", want, n.entries.err)
		}
	})
}

// getCAR asks a sandbox host as any program would.
func getCAR(tb testing.TB, w *sandbox.World, did syntax.DID) []byte {
	tb.Helper()
	known, err := w.Repo(did)
	if err != nil {
		tb.Fatal(err)
	}
	req, err := http.NewRequestWithContext(tb.Context(), http.MethodGet, known.Host+"/xrpc/"+methodGetRepo+"?did="+did.String(), http.NoBody)
	if err != nil {
		tb.Fatal(err)
	}
	transport := new(http.Transport)
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		tb.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // it was read to its end
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		tb.Fatalf("getRepo: %d %v", resp.StatusCode, err)
	}
	return body
}
