package server

import (
	"errors"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

func TestCursorComesBackAsItWas(t *testing.T) {
	t.Parallel()
	for _, c := range []cursor{
		{order: byIndexed, collection: note, number: 1},
		{order: byIndexed, collection: note, number: 1<<64 - 1},
		{order: byKey, collection: note, number: 1<<32 - 1, after: "self"},
		{order: byRepo, did: alice, at: note, after: "self"},
		{order: byRepo, collection: note, did: alice, at: note, after: "a:b~c"},
	} {
		got, err := parseCursor(c.String(), c.order, c.collection, c.did)
		if err != nil || got != c {
			t.Errorf("%+v came back as %+v, %v", c, got, err)
		}
	}
}

// FuzzCursor shows that any cursor that is taken is one that was made here.
func FuzzCursor(f *testing.F) {
	f.Add(cursor{order: byIndexed, collection: note, number: 7}.String(), "indexed", string(note), "")
	f.Add(cursor{order: byKey, collection: note, number: 7, after: "self"}.String(), "rkey", string(note), "")
	f.Add(cursor{order: byRepo, did: alice, at: note, after: "self"}.String(), "repo", "", string(alice))
	f.Add("MQAAAAAAAA", "", "", "")
	f.Add("", "rkey", "", "")
	f.Fuzz(func(t *testing.T, text, by, collection, did string) {
		c, err := parseCursor(text, order(by), syntax.NSID(collection), syntax.DID(did))
		if err != nil {
			var fail failure
			if !errors.As(err, &fail) || fail.status != 400 {
				t.Fatalf("%q is refused with %v", text, err)
			}
			return
		}
		if text != "" && c.String() != text {
			t.Fatalf("%q was not made here: %q", text, c)
		}
	})
}
