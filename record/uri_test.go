package record_test

import (
	"errors"
	"strings"
	"testing"

	"appview/record"
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
