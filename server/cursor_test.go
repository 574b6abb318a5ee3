package server

import (
	"errors"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

func TestCursorComesBackAsItWas(t *testing.T) {
	t.Parallel()
	for _, c := range []cursor{
		{collection: note, below: 1},
		{collection: note, below: 1<<64 - 1},
		{did: alice, at: note, after: "self"},
		{collection: note, did: alice, at: note, after: "a:b~c"},
	} {
		got, err := parseCursor(c.String(), c.collection, c.did)
		if err != nil || got != c {
			t.Errorf("%+v came back as %+v, %v", c, got, err)
		}
	}
}

// FuzzCursor shows that any cursor that is taken is one that was made here.
func FuzzCursor(f *testing.F) {
	f.Add(cursor{collection: note, below: 7}.String(), string(note), "")
	f.Add(cursor{did: alice, at: note, after: "self"}.String(), "", string(alice))
	f.Add("MQAAAAAA", "", "")
	f.Add("", "", "")
	f.Fuzz(func(t *testing.T, text, collection, did string) {
		c, err := parseCursor(text, syntax.NSID(collection), syntax.DID(did))
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
