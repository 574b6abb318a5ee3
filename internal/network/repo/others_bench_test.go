package repo

import (
	"strconv"
	"strings"
	"testing"

	atrepo "github.com/bluesky-social/indigo/atproto/repo"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"

	"appview/internal/network/repo/repotest"
)

// BenchmarkOthers reads a repo of 1,000 records of 350 bytes to its last record, its
// signature checked, with this package and with indigo's. docs/dependencies.md has the
// figures.
func BenchmarkOthers(b *testing.B) {
	const records = 1000
	m := repotest.New(b)
	var leaves []repotest.Leaf
	for i, key := range repotest.Keys("com.example.note", 0, records) {
		text := strings.Repeat("x", 340) + strconv.Itoa(i)
		leaves = append(leaves, repotest.Leaf{Key: key, Value: m.Put("\xa1\x64text" + repotest.TextHead(uint64(len(text))) + text)})
	}
	car := m.CAR(m.Commit(m.Node("", repotest.Compress(leaves...)...), nil))
	for _, c := range []struct {
		name string
		read func() (records int, err error)
	}{
		{"repo", func() (n int, err error) {
			r, err := open(b.Context(), car, account(m))
			if err != nil {
				return 0, err
			}
			defer r.Close()
			for _, collection := range r.Collections() {
				for range r.Records(b.Context(), collection) {
					n++
				}
			}
			return n, r.Err()
		}},
		{"indigo", func() (n int, err error) {
			commit, r, err := atrepo.LoadRepoFromCAR(b.Context(), strings.NewReader(car))
			if err != nil {
				return 0, err
			}
			if err := commit.VerifySignature(m.PublicKey()); err != nil {
				return 0, err
			}
			err = r.MST.Walk(func(key []byte, _ cid.Cid) error {
				collection, rkey, err := syntax.ParseRepoPath(string(key))
				if err != nil {
					return err
				}
				n++
				_, _, err = r.GetRecordBytes(b.Context(), collection, rkey)
				return err
			})
			return n, err
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(len(car)))
			b.ReportAllocs()
			for b.Loop() {
				if n, err := c.read(); err != nil || n != records {
					b.Fatal(n, err)
				}
			}
		})
	}
}
