package reads

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"

	"appview/internal/record"
	"appview/server/answer"
	"appview/store/index"
)

func TestCacheHoldsOneVersionWithinItsBound(t *testing.T) {
	t.Parallel()
	c := cache{limit: 1000}
	c.put(1, "a", answer.Ready{Body: make([]byte, 400)})
	c.put(1, "b", answer.Ready{Body: make([]byte, 400)})
	if _, ok := c.get(1, "a"); !ok || c.size != 802 {
		t.Errorf("not kept: %d bytes", c.size)
	}
	c.put(1, "large", answer.Ready{Body: make([]byte, 1000)})
	c.put(1, "c", answer.Ready{Body: make([]byte, 400)})
	if _, ok := c.get(1, "a"); ok || c.size != 401 {
		t.Errorf("past its bound: %d bytes", c.size)
	}
	c.put(2, "a", answer.Ready{})
	c.put(1, "late", answer.Ready{})
	for _, key := range []string{"c", "late"} {
		if _, ok := c.get(1, key); ok {
			t.Errorf("%s of an older version is found", key)
		}
		if _, ok := c.get(2, key); ok {
			t.Errorf("%s is found under another version", key)
		}
	}
	if _, ok := c.get(2, "a"); !ok {
		t.Error("not kept")
	}
}

// TestTagsKeepDatabasesApart has a database that was lost and filled anew: all of its
// records have the places in the order of changes and the values that they had.
func TestTagsKeepDatabasesApart(t *testing.T) {
	t.Parallel()
	was := index.Record{
		DID: "did:plc:alice7777777777777777777", Collection: "com.example.note", RKey: "key0001", Rev: "3kgk4qs6aa22a", IndexedAt: time.Unix(1_800_000_000, 0).UTC(), Seq: 7,
		Source: index.SourceRepo, Body: bodyOf(t, "x"),
	}
	s := New(nil, answer.New(slog.New(slog.DiscardHandler), "v-test", answer.DefaultAnswerBytes))
	tags := func(rec index.Record) [2]string {
		page := s.newPage(nil, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
		page.print(2, (&printer{}).append)
		if err := page.add(&rec); err != nil {
			t.Fatal(err)
		}
		rec.Body.Verified = false // a verified one is named by its CID alone
		return [2]string{page.reply(true).Tag, s.recordTag(&rec)}
	}
	for what, change := range map[string]func(*index.Record){
		"rev":        func(r *index.Record) { r.Rev = "3kgk4qs6aa22b" },
		"indexed at": func(r *index.Record) { r.IndexedAt = r.IndexedAt.Add(time.Second) },
		"seq":        func(r *index.Record) { r.Seq++ },
		"cid":        func(r *index.Record) { r.Body = bodyOf(t, "y") },
	} {
		now := was
		change(&now)
		for i, tag := range tags(now) {
			if tag == "" || tag == tags(was)[i] {
				t.Errorf("another %s: tag %q", what, tag)
			}
		}
	}
}

// bodyOf is the body of a record with a text.
func bodyOf(t *testing.T, text string) record.Body {
	t.Helper()
	value := fmt.Sprintf(`{"$type":"com.example.note","text":%q}`, text)
	body, err := record.FromJSON([]byte(value), cidOf(t, value))
	if err != nil || !body.Verified {
		t.Fatalf("verified %v, %v", body.Verified, err)
	}
	return body
}

// cidOf is the CID of a value.
func cidOf(t *testing.T, value string) string {
	t.Helper()
	data, err := atdata.UnmarshalJSON([]byte(value))
	if err != nil {
		t.Fatal(err)
	}
	block, err := atdata.MarshalCBOR(data)
	if err != nil {
		t.Fatal(err)
	}
	id, err := cid.V1Builder{Codec: cid.DagCBOR, MhType: multihash.SHA2_256}.Sum(block)
	if err != nil {
		t.Fatal(err)
	}
	return id.String()
}
