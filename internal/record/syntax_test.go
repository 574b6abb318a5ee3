package record

import (
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// FuzzSyntax holds the checks of names against those of the reference.
func FuzzSyntax(f *testing.F) {
	long := strings.Repeat("a", 63)
	for _, seed := range []string{
		"com.example.note", "com.example", "a.b.c", "a-.b.c", "-a.b.c", "a.1b.c", "1a.b.c", "a.b.1c", "a.b.c-d", "a..c", "a.b.", ".b.c", "a.b.c\n", "com.EXAMPLE.note", "com.example.noteTwo", "Com.example.note", "com.example.no_te", "com.example.nöte",
		long + "." + long + "." + long, long + "x.b.c", "a." + long + "x.c", "a.b." + long + "x", strings.Repeat("a.", 157) + "abc", strings.Repeat("a.", 157) + "abcd", "@.b.c", "[.b.c", "a.`.c", "a.b.{",
		"", ".", "..", "...", ".a", "a b", "3kgk4qs6aa22a", "a/b", "~:_-.", strings.Repeat("k", 512), strings.Repeat("k", 513), "k\x00", "ключ", "\xff",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		_, err := ParseCollection(s)
		if got := ValidCollection(s); got != (err == nil) || ValidCollection([]byte(s)) != got {
			t.Errorf("collection %q: %v, the reference says %v", s, got, err)
		}
		_, err = syntax.ParseRecordKey(s)
		if got := ValidRecordKey(s); got != (err == nil) || ValidRecordKey([]byte(s)) != got {
			t.Errorf("record key %q: %v, the reference says %v", s, got, err)
		}
	})
}
