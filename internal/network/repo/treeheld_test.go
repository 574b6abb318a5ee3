package repo

import (
	"strings"
	"testing"

	"appview/internal/network/repo/repotest"
)

// TestWhatATreeTakesIsChargedBeforeItIsTaken holds what is charged for a large repo
// against what stands in memory.
func TestWhatATreeTakesIsChargedBeforeItIsTaken(t *testing.T) {
	t.Parallel()
	m := repotest.New(t)
	all := repotest.KeysFrom("com.example.thing/"+strings.Repeat("k", 50), 0, 12_000)
	root := m.Node("", repotest.Compressed(m.Value(1), all...)...)
	c := carOf(m)
	if c.file == nil {
		t.Fatalf("%d bytes stand in memory", c.size())
	}
	asked := int64(0)
	c.grow = func(n int64) error {
		asked += n
		return nil
	}
	before := c.charged
	v := verifier{tree: tree{car: c}}
	if err := v.verifyTree(t.Context(), []byte(root)); err != nil {
		t.Fatal(err)
	}
	r := &Repo{paths: v.paths, walker: walker{tree: v.tree, root: []byte(root)}}
	n := 0
	for range r.Records(t.Context(), "com.example.thing") {
		n++
	}
	held := int64(cap(c.index))*entrySize + int64(cap(r.buf))
	for _, n := range r.walker.path {
		held += int64(cap(n.buf)) + int64(cap(n.entries))*entryRefSize
	}
	if n != len(all) || r.Err() != nil {
		t.Errorf("walked %d records of %d: %v", n, len(all), r.Err())
	}
	if c.bufferedBytes < held || c.charged < held-freeBytes || asked != c.charged-before || asked == 0 {
		t.Errorf("%d bytes stand in memory, %d are counted, %d were asked for", held, c.bufferedBytes, asked+before+freeBytes)
	}
}
