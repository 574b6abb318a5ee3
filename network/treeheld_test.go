package network

import (
	"testing"
)

// TestWhatATreeTakesIsChargedBeforeItIsTaken holds what is charged for a large repo
// against what stands in memory.
func TestWhatATreeTakesIsChargedBeforeItIsTaken(t *testing.T) {
	t.Parallel()
	m := newCARMaker(t)
	all := keysFrom("com.example.thing/"+repeat("k", 50), 0, 12_000)
	root := m.node("", compressed(m.value(1), all...)...)
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
	if err := v.root(t.Context(), []byte(root)); err != nil {
		t.Fatal(err)
	}
	r := &Repo{paths: v.paths, walker: walker{tree: v.tree, root: []byte(root)}, fail: func(err error) error { return err }}
	n := 0
	for range r.Records(t.Context(), "com.example.thing") {
		n++
	}
	held := int64(cap(c.places))*placeSize + int64(cap(r.buf))
	for _, n := range r.walker.path {
		held += int64(cap(n.buf)) + int64(cap(n.entries))*entrySize
	}
	if n != len(all) || r.Err() != nil {
		t.Errorf("walked %d records of %d: %v", n, len(all), r.Err())
	}
	if c.held < held || c.charged < held-freeBody || asked != c.charged-before || asked == 0 {
		t.Errorf("%d bytes stand in memory, %d are counted, %d were asked for", held, c.held, asked+before+freeBody)
	}
}
