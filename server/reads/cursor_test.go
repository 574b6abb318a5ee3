package reads

import (
	"errors"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/server/answer"
)

const (
	cursorNote  = syntax.NSID("com.example.note")
	cursorAlice = syntax.DID("did:plc:alice7777777777777777777")
)

func TestCursorComesBackAsItWas(t *testing.T) {
	t.Parallel()
	for _, c := range []cursor{
		{order: byIndexed, collection: cursorNote, number: 1},
		{order: byIndexed, collection: cursorNote, number: 1<<64 - 1},
		{order: byKey, collection: cursorNote, number: 1<<32 - 1, after: "self"},
		{order: byRepo, did: cursorAlice, at: cursorNote, after: "self"},
		{order: byRepo, collection: cursorNote, did: cursorAlice, at: cursorNote, after: "a:b~c"},
	} {
		got, err := parseCursor(c.String(), c.order, c.collection, c.did)
		if err != nil || got != c {
			t.Errorf("%+v came back as %+v, %v", c, got, err)
		}
	}
}

// FuzzCursor shows that any cursor that is taken is one that was made here.
func FuzzCursor(f *testing.F) {
	f.Add(cursor{order: byIndexed, collection: cursorNote, number: 7}.String(), "indexed", string(cursorNote), "")
	f.Add(cursor{order: byKey, collection: cursorNote, number: 7, after: "self"}.String(), "rkey", string(cursorNote), "")
	f.Add(cursor{order: byRepo, did: cursorAlice, at: cursorNote, after: "self"}.String(), "repo", "", string(cursorAlice))
	f.Add("MQAAAAAAAA", "", "", "")
	f.Add("", "rkey", "", "")
	f.Fuzz(func(t *testing.T, text, by, collection, did string) {
		c, err := parseCursor(text, order(by), syntax.NSID(collection), syntax.DID(did))
		if err != nil {
			var fail answer.Failure
			if !errors.As(err, &fail) || fail.Status != 400 {
				t.Fatalf("%q is refused with %v", text, err)
			}
			return
		}
		if text != "" && c.String() != text {
			t.Fatalf("%q was not made here: %q", text, c)
		}
	})
}
