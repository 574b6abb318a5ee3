package record_test

import (
	"errors"
	"strings"
	"testing"

	"appview/internal/record"
)

func TestParseURI(t *testing.T) {
	t.Parallel()
	for _, good := range []string{
		"at://did:plc:z72i7hdynmk6r22z27h6tvur/app.bsky.feed.post/3k5wmvqz4hs2a",
		"at://did:web:example.com/xyz.statusphere.status/self",
		"at://did:plc:z72i7hdynmk6r22z27h6tvur/app.bsky.feed.post/a:b~c_d-e.f",
	} {
		u, err := record.ParseURI(good)
		if err != nil || u.String() != good {
			t.Errorf("%s: got %s, %v", good, u, err)
		}
	}
	for _, bad := range []string{
		"", "at://", "at://did:plc:abc", "at://did:plc:abc/app.bsky.feed.post", "at://did:plc:abc/app.bsky.feed.post/",
		"at://did:plc:abc/app.bsky.feed.post/a/", "at://did:plc:abc/app.bsky.feed.post/a/b", "at://did:plc:abc/app.bsky.feed.post/a?q=1",
		"at://did:plc:abc/app.bsky.feed.post/a#f", "at://did:plc:abc/app.bsky.feed.post/..", "at://did:plc:abc/app.bsky.feed.post/.",
		"at://did:plc:abc/app.bsky.feed.post/a%20b", "at://did:plc:abc/app.bsky.feed.post/" + strings.Repeat("a", 513),
		"at://alice.test/app.bsky.feed.post/a", "at://DID:plc:abc/app.bsky.feed.post/a", "at://did:plc:abc/post/a", "AT://did:plc:abc/app.bsky.feed.post/a",
		"https://did:plc:abc/app.bsky.feed.post/a", "did:plc:abc/app.bsky.feed.post/a",
	} {
		if u, err := record.ParseURI(bad); !errors.Is(err, record.ErrInvalid) {
			t.Errorf("%q: got %v, %v, want invalid", bad, u, err)
		}
	}
}

func TestCollectionsOfReposHaveAuthoritiesInLowerCase(t *testing.T) {
	t.Parallel()
	for _, good := range []string{"com.example.note", "com.example.someNote", "com.example.NOTE", "com.ex-4mple.a.b.c", "a.b.c"} {
		if c, err := record.ParseCollection(good); err != nil || c.String() != good {
			t.Errorf("%s: got %s, %v", good, c, err)
		}
	}
	for _, bad := range []string{
		"", "com.example", "com.EXAMPLE.note", "COM.example.note", "com.examplE.note", "com.example.no_te", "com.example.note/", "com.example..note",
		"com.example.note.", ".com.example.note", "com.example.note ", "com.example.1note", "com.exämple.note", "com.example.no\xff", "..", "com.example.*",
		strings.Repeat("a", 64) + ".b.c", strings.Repeat("a.", 200) + "b",
	} {
		if c, err := record.ParseCollection(bad); !errors.Is(err, record.ErrInvalid) {
			t.Errorf("%q: got %s, %v, want invalid", bad, c, err)
		}
	}
}

func TestParseURILowersTheAuthority(t *testing.T) {
	t.Parallel()
	u, err := record.ParseURI("at://did:web:example.com/XYZ.StatuSphere.someStatus/Self")
	if want := "at://did:web:example.com/xyz.statusphere.someStatus/Self"; err != nil || u.String() != want {
		t.Errorf("got %s, %v, want %s", u, err, want)
	}
}
