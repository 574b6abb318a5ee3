package repo

import (
	"slices"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/network/outcome"
	"appview/internal/network/repo/repotest"
)

func TestRecordsThatNobodyCanAddressAreRejectedAlone(t *testing.T) {
	t.Parallel()
	m := repotest.New(t)
	v := m.Value(1)
	large := m.Put(strings.Repeat("x", maxBlock+1))
	raw := "\x01\x55\x12\x20" + strings.Repeat("r", 32)
	var leaves []repotest.Leaf
	want := map[string]string{}
	for _, key := range []string{
		repotest.Keys("a.b.c", 0, 1)[0], repotest.Keys("a.b.c.d", 0, 1)[0], repotest.Keys("a.b.c-d", 0, 1)[0], repotest.Keys("not-an-nsid", 0, 1)[0],
		repotest.Keys("a.b.c/with a space", 0, 1)[0], repotest.Keys("a.b.c/two/slashes", 0, 1)[0], repotest.Keys("a.b.c-d/\x00", 0, 1)[0], repotest.Keys("a.b.c/large", 0, 1)[0] + "", repotest.Keys("a.b.z\n", 0, 1)[0],
	} {
		leaves = append(leaves, repotest.Leaf{Key: key, Value: v})
	}
	leaves = append(leaves, repotest.Leaf{Key: repotest.FirstKey("a.b.large"), Value: large}, repotest.Leaf{Key: repotest.FirstKey("a.b.raw"), Value: raw})
	slices.SortFunc(leaves, func(x, y repotest.Leaf) int { return strings.Compare(x.Key, y.Key) })
	bad := 0
	for _, l := range leaves {
		if _, _, err := syntax.ParseRepoPath(l.Key); err != nil {
			bad++
			continue
		}
		want[l.Key] = l.Value
	}
	r, err := open(t.Context(), m.CAR(m.Commit(m.Node("", repotest.Compress(leaves...)...), nil)), account(m))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got := r.Rejected(); got.Count != bad || bad == 0 || got.First == "" {
		t.Errorf("rejected: %+v, want %d", got, bad)
	}
	got := map[string]string{}
	for _, collection := range r.Collections() {
		for rkey, b := range r.Records(t.Context(), collection) {
			got[collection.String()+"/"+rkey.String()] = string(b.CID.Bytes())
			if kept := b.Data != nil; kept != (collection != "a.b.large" && collection != "a.b.raw") {
				t.Errorf("%s/%s: kept %v", collection, rkey, kept)
			}
		}
	}
	if len(got) != len(want) {
		t.Errorf("got %d records, want %d", len(got), len(want))
	}
	for key, id := range want {
		if got[key] != id {
			t.Errorf("%s is %x, want %x", key, got[key], id)
		}
	}
}

// A block can be named by any number of keys, and is a record as often; keys can share
// nearly all of their bytes, and each is as long as it is. So a repo must not say much
// more than was sent.
func TestASmallCARIsNotAHugeRepo(t *testing.T) {
	t.Parallel()
	m := repotest.New(t)
	large := m.Put("\xa1\x61b" + repotest.BytesHead(maxBlock-16) + strings.Repeat("x", maxBlock-16))
	small := m.Value(1)
	const long = "com.example.thing/" // and a long beginning of the record key
	for name, c := range map[string]struct {
		value, beginning string
		times            int
		want             outcome.Reason
	}{
		"a large record, as often as it may be":   {large, long, maxExpansion + freeExpansion/maxBlock, ""},
		"a large record, once more":               {large, long, maxExpansion + freeExpansion/maxBlock + 1, outcome.ReasonTooLarge},
		"a small record under many keys":          {small, long, 9_000, ""},
		"a small record under many long keys":     {small, long + strings.Repeat("k", 480), 9_000, outcome.ReasonTooLarge},
		"a small record under fewer long keys":    {small, long + strings.Repeat("k", 480), 3_000, ""},
		"no record under many paths too long":     {"\x01\x55\x00\x00", strings.Repeat("k", 1000), 9_000, outcome.ReasonTooLarge},
		"no record under many keys that are none": {"\x01\x55\x00\x00", "k", 9_000, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// The one block that matters, and the tree.
			n := repotest.Maker{TB: t, Key: m.Key}
			for _, b := range m.Blocks {
				if b[0] == c.value {
					n.Put(b[1])
				}
			}
			root := n.Node("", repotest.Compressed(c.value, repotest.KeysFrom(c.beginning, 0, c.times)...)...)
			r, err := open(t.Context(), n.CAR(n.Commit(root, nil)), account(m))
			wantOutcome(t, r, err, c.want)
		})
	}
}
