package record

import (
	"strings"
	"testing"
)

// FuzzURI reads anything as a record's address: what is taken is written back as it
// was, and its parts hold nothing that a key in the database could not.
func FuzzURI(f *testing.F) {
	for _, seed := range []string{
		"at://did:plc:aaaaaaaaaaaaaaaaaaaaaaaa/com.example.note/3kgk4qs6aa22a", "at://did:web:a.example/com.example.note/self", "at://a.example/com.example.note/x",
		"at://did:plc:a/b.c.d/..", "at:///", "at://did:plc:a/b.c.d/e#f", "at://did:plc:a/b.c.d/e/", "at://did:plc:a%00/b.c.d/e",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		uri, err := ParseURI(text)
		if err != nil {
			return
		}
		if !strings.EqualFold(uri.String(), text) || strings.ContainsAny(text, "\x00 \n?#") {
			t.Fatalf("%q is read as %q", text, uri)
		}
		if again, err := ParseURI(uri.String()); err != nil || again != uri {
			t.Fatalf("%q is read again as %v, %v", text, again, err)
		}
	})
}
