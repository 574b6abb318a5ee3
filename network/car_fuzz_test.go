package network

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"testing"

	"github.com/bluesky-social/indigo/atproto/repo"
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
		var m measured
		var err error
		wantCheap(t, len(data), func() { m, err = measure(t.Context(), data) })
		if _, bad := errors.AsType[*badCAR](err); bad {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if took := freeBody + m.c.charged; took > 4*int64(len(data))+freeBody || m.c.held > took {
			t.Errorf("%d bytes take %d, of which %d were asked for", len(data), m.c.held, m.c.charged)
		}
		_ = signed(m.commit, key)
	})
}

// measured is a repo that was read, verified and walked, and what that took.
type measured struct {
	c       *car
	commit  *repo.Commit
	records int
}

// receive reads a CAR, however much memory that takes.
func receive(data []byte) (*car, error) {
	c := &car{received: int64(len(data)), blocks: blocks{
		open:  spoolInTemp,
		grow:  func(int64) error { return nil },
		spill: func(_ int64, write func() error) error { return write() },
	}}
	return c, c.receive(bufio.NewReaderSize(bytes.NewReader(data), carBuffer))
}

// measure reads a CAR as Repo does, but for its signature: a fuzzer cannot sign.
func measure(ctx context.Context, data []byte) (m measured, err error) {
	m.c, err = receive(data)
	defer m.c.close()
	if err != nil {
		return m, err
	}
	f, there, err := m.c.find(m.c.root)
	if err != nil || !there || f.size == unkept {
		return m, errors.Join(err, spoiled(ReasonIncomplete, "no commit"))
	}
	root, err := m.c.read(f, make([]byte, f.size))
	if err != nil {
		return m, err
	}
	if m.commit, err = readCommit(root); err != nil {
		return m, spoiled(ReasonBadAnswer, "%w", err)
	}
	v := verifier{tree: tree{car: m.c}}
	if err := v.root(ctx, m.commit.Data.Bytes()); err != nil {
		return m, err
	}
	r := &Repo{paths: v.paths, walker: walker{tree: v.tree, root: m.commit.Data.Bytes()}, fail: func(err error) error { return err }}
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
		m := newCARMaker(t)
		beginning := "com.example.thing/" + repeat("k", int(long%600))
		var all []string
		for part := range slices.Chunk(data[:min(len(data), 8<<10)], int(width%8)+1) {
			all = append(all, beginning+string(part))
		}
		value := m.value(1)
		right := treeOf(m, value, all...)
		root := right
		if form%4 > 0 {
			root = misshapen(m, value, form, all)
		}
		body := m.car(m.commit(root, nil))
		var got measured
		var err error
		wantCheap(t, len(body), func() { got, err = measure(t.Context(), []byte(body)) })
		_, bad := errors.AsType[*badCAR](err)
		switch {
		case err != nil && !bad:
			t.Fatal(err)
		case err == nil && root != right:
			t.Errorf("believed in form %d: %q", form%4, all)
		case err != nil && root == right:
			t.Errorf("not believed: %v", err)
		}
		if got.c.charged > 2*int64(len(body))+freeBody {
			t.Errorf("%d bytes take %d", len(body), got.c.charged)
		}
	})
}

// misshapen is a tree of keys in a form that is mostly not theirs.
func misshapen(m *carMaker, value string, form uint8, all []string) string {
	if form/4%2 == 0 {
		slices.Sort(all)
		all = slices.Compact(all)
	}
	leaves := compressed(value, all...)
	if form%4 == 2 {
		for i := range leaves {
			leaves[i] = leaf{key: all[i], value: value}
		}
	}
	if half := len(leaves) / 2; form%4 == 3 && half > 0 {
		return m.node(m.node("", leaves[:half]...), compressed(value, all[half:]...)...)
	}
	return m.node("", leaves...)
}

// FuzzNode reads anything as a node of a tree, which a fuzzer of whole CARs
// cannot reach past the hashes.
func FuzzNode(f *testing.F) {
	f.Add([]byte(nodeBytes("")))
	f.Add([]byte(nodeBytes(idOf("l"), leaf{key: "a.b.c/d", value: idOf("v"), right: idOf("r")}, leaf{key: "e", prefix: 6, value: idOf("w")})))
	f.Add([]byte(nodeBytes("", leaf{key: "a", prefix: -1, value: "x"})))
	f.Add([]byte(nodeBytes("", compressed(idOf("v"), "aa", "aab", "aabc", "aabcd", "aabd", "ab", "abab", "abb", "b")...)))
	f.Fuzz(func(t *testing.T, data []byte) {
		n := &node{data: data}
		c := &car{blocks: blocks{grow: func(int64) error { return nil }}}
		var err error
		wantCheap(t, len(data), func() { err = n.parse(&tree{car: c}) })
		if err != nil {
			return
		}
		if c.held > int64(len(data)) {
			t.Errorf("%d bytes take %d", len(data), c.held)
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
