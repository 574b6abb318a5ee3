package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/repo"
	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/network/outcome"
	"appview/internal/network/repo/repotest"
	"appview/internal/sandbox"
	"appview/internal/sandbox/sandboxtest"
)

// FuzzCAR reads anything as a repo. Whatever it is: no panic, no more memory than
// was asked for, and what was believed can be walked and is what it is named.
func FuzzCAR(f *testing.F) {
	w := sandboxtest.Start(f, sandbox.Config{Seed: 5, Hosts: 1, Repos: 6})
	for _, r := range w.Repos() {
		f.Add(getCAR(f, w, r.DID))
	}
	m := repotest.New(f)
	f.Add([]byte(m.CAR(m.Commit(m.Node("", repotest.Leaf{Key: repotest.FirstKey("com.example.thing"), Value: m.Value(1)}), nil))))
	f.Add([]byte(repotest.Header(repotest.IDOf("x")) + repotest.Frame(repotest.IDOf("x")+"x")))
	key := m.PublicKey()
	f.Fuzz(func(t *testing.T, data []byte) {
		var m measured
		var err error
		wantCheap(t, len(data), func() { m, err = measure(t.Context(), data) })
		if _, bad := errors.AsType[*outcome.BadContent](err); bad {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if took := freeBytes + m.c.charged; took > 4*int64(len(data))+freeBytes || m.c.bufferedBytes > took {
			t.Errorf("%d bytes take %d, of which %d were asked for", len(data), m.c.bufferedBytes, m.c.charged)
		}
		_ = verifySignature(m.commit, key)
	})
}

// measured is a repo that was read, verified and walked, and what that took.
type measured struct {
	c       *CAR
	commit  *repo.Commit
	records int
}

// receive reads a CAR, however much memory that takes.
func receive(data []byte) (*CAR, error) {
	c := NewCAR(nil)
	err := c.Receive(bytes.NewReader(data), unbounded())
	if err == nil && c.received != int64(len(data)) {
		return c, fmt.Errorf("%d bytes count as %d", len(data), c.received)
	}
	return c, err
}

// measure reads a CAR as Repo does, but for its signature: a fuzzer cannot sign.
func measure(ctx context.Context, data []byte) (m measured, err error) {
	m.c, err = receive(data)
	defer m.c.Close()
	if err != nil {
		return m, err
	}
	f, found, err := m.c.find(m.c.root)
	if err != nil || !found || f.size == notStored {
		return m, errors.Join(err, outcome.Bad(outcome.ReasonIncomplete, "no commit"))
	}
	root, err := m.c.read(f, make([]byte, f.size))
	if err != nil {
		return m, err
	}
	if m.commit, err = decodeCommit(root); err != nil {
		return m, outcome.Bad(outcome.ReasonBadAnswer, "%w", err)
	}
	v := verifier{tree: tree{car: m.c}}
	if err := v.verifyTree(ctx, m.commit.Data.Bytes()); err != nil {
		return m, err
	}
	r := &Repo{paths: v.paths, walker: walker{tree: v.tree, root: m.commit.Data.Bytes()}}
	for _, collection := range slices.Backward(r.Collections()) {
		last := syntax.RecordKey("")
		for rkey, b := range r.Records(ctx, collection) {
			if m.records++; last != "" && rkey >= last {
				return m, fmt.Errorf("%s after %s", rkey, last)
			}
			last = rkey
			if sum, err := b.CID.Prefix().Sum(b.Data); b.Data != nil && (err != nil || sum != b.CID) {
				return m, fmt.Errorf("%s is not its block", b.CID)
			}
		}
	}
	if r.Err() != nil || m.records != v.entries-r.Rejected().Count {
		return m, fmt.Errorf("walked %d records of %d, %d rejected: %w", m.records, v.entries, r.Rejected().Count, r.Err())
	}
	return m, nil
}

// FuzzTree makes a tree of anything that is sound in all its hashes: keys on the layers
// where they belong or on others, with their beginnings shared or not. What is believed
// is the one tree of its keys, and costs no more than its bytes may.
func FuzzTree(f *testing.F) {
	f.Add([]byte("abcabdabeabf"), uint8(3), uint8(0), uint16(0))
	f.Add([]byte("the quick brown fox jumps over the lazy dog"), uint8(2), uint8(1), uint16(300))
	f.Add(bytes.Repeat([]byte("\x00\x01\x02\x03\x04\xff"), 100), uint8(4), uint8(2), uint16(500))
	f.Add([]byte("zyxwvutsrqponm"), uint8(1), uint8(3), uint16(7))
	f.Fuzz(func(t *testing.T, data []byte, width, form uint8, long uint16) {
		m := repotest.New(t)
		beginning := "com.example.thing/" + strings.Repeat("k", int(long%600))
		var all []string
		for part := range slices.Chunk(data[:min(len(data), 8<<10)], int(width%8)+1) {
			all = append(all, beginning+string(part))
		}
		value := m.Value(1)
		right := treeOf(m, value, all...)
		root := right
		if form%4 > 0 {
			root = misshapen(m, value, form, all)
		}
		body := m.CAR(m.Commit(root, nil))
		var got measured
		var err error
		wantCheap(t, len(body), func() { got, err = measure(t.Context(), []byte(body)) })
		_, bad := errors.AsType[*outcome.BadContent](err)
		switch {
		case err != nil && !bad:
			t.Fatal(err)
		case err == nil && root != right:
			t.Errorf("believed in form %d: %q", form%4, all)
		case err != nil && root == right:
			t.Errorf("not believed: %v", err)
		}
		if got.c.charged > 2*int64(len(body))+freeBytes {
			t.Errorf("%d bytes take %d", len(body), got.c.charged)
		}
	})
}

// misshapen is a tree of keys in a form that is mostly not theirs.
func misshapen(m *repotest.Maker, value string, form uint8, all []string) string {
	if form/4%2 == 0 {
		slices.Sort(all)
		all = slices.Compact(all)
	}
	leaves := repotest.Compressed(value, all...)
	if form%4 == 2 {
		for i := range leaves {
			leaves[i] = repotest.Leaf{Key: all[i], Value: value}
		}
	}
	if half := len(leaves) / 2; form%4 == 3 && half > 0 {
		return m.Node(m.Node("", leaves[:half]...), repotest.Compressed(value, all[half:]...)...)
	}
	return m.Node("", leaves...)
}

// FuzzNode reads anything as a node of a tree, which a fuzzer of whole CARs
// cannot reach past the hashes.
func FuzzNode(f *testing.F) {
	f.Add([]byte(repotest.NodeBytes("")))
	f.Add([]byte(repotest.NodeBytes(repotest.IDOf("l"), repotest.Leaf{Key: "a.b.c/d", Value: repotest.IDOf("v"), Right: repotest.IDOf("r")}, repotest.Leaf{Key: "e", Prefix: 6, Value: repotest.IDOf("w")})))
	f.Add([]byte(repotest.NodeBytes("", repotest.Leaf{Key: "a", Prefix: -1, Value: "x"})))
	f.Add([]byte(repotest.NodeBytes("", repotest.Compressed(repotest.IDOf("v"), "aa", "aab", "aabc", "aabcd", "aabd", "ab", "abab", "abb", "b")...)))
	f.Fuzz(func(t *testing.T, data []byte) {
		n := &node{data: data}
		c := &CAR{blocks: blocks{grow: func(int64) error { return nil }}}
		var err error
		wantCheap(t, len(data), func() { err = n.parse(&tree{car: c}) })
		if err != nil {
			return
		}
		if c.bufferedBytes > int64(len(data)) {
			t.Errorf("%d bytes take %d", len(data), c.bufferedBytes)
		}
		var keys []string
		n.rewind()
		for _, ok := n.forward(); ok; _, ok = n.forward() {
			keys = append(keys, string(n.key))
		}
		if len(keys) != len(n.entries) || !slices.IsSorted(keys) || len(slices.Compact(slices.Clone(keys))) != len(keys) {
			t.Errorf("keys %q of %d entries", keys, len(n.entries))
		}
		for i, key := range slices.Backward(keys) {
			if string(n.key) != key {
				t.Fatalf("going back, key %d is %q, want %q", i, n.key, key)
			}
			if i > 0 {
				n.back()
			}
		}
	})
}

// FuzzCommit reads anything as a commit, and checks its signature.
func FuzzCommit(f *testing.F) {
	m := repotest.New(f)
	key := m.PublicKey()
	m.Commit(m.Node(""), nil)
	f.Add([]byte(m.Blocks[len(m.Blocks)-1][1]))
	f.Fuzz(func(t *testing.T, data []byte) {
		commit, err := decodeCommit(data)
		if err != nil {
			return
		}
		if verifySignature(commit, key) == nil && !bytes.Contains(data, commit.Sig) {
			t.Fatalf("%x is signed by nobody", data)
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
	req, err := http.NewRequestWithContext(tb.Context(), http.MethodGet, known.Host+"/xrpc/"+"com.atproto.sync.getRepo"+"?did="+did.String(), http.NoBody)
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
