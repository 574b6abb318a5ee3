package sandbox

import (
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"

	"appview/internal/sandbox/encode"
)

const (
	defaultRecordBytes = 450
	// plainBytes is what a generated record needs before its text begins.
	plainBytes = 110
	// bigNumber is JavaScript's largest safe integer; hosts send numbers up to it.
	bigNumber = 1<<53 - 1
	// wordKeyShare is the share of an unknown collection's keys that are words.
	wordKeyShare = 0.15
)

// generator makes record values. It belongs to one goroutine.
type generator struct {
	rng *rand.Rand
	odd float64
}

// value makes a record of the collection, and says whether its CID cannot be
// recomputed from its JSON.
func (g generator) value(c Collection, createdAt string) (value map[string]any, odd bool) {
	value = map[string]any{"$type": c.NSID.String(), "createdAt": createdAt}
	odd = g.odd > 0 && g.rng.Float64() < g.odd
	size := c.RecordBytes
	if c.NSID == StatusCollection && size == 0 {
		value["status"] = pick(g.rng, statuses())
		if odd {
			g.spoil(value)
		}
		return value, odd
	}
	if size == 0 {
		size = defaultRecordBytes
	}
	size -= plainBytes
	for _, extra := range g.rng.Perm(len(extras()))[:g.rng.IntN(4)] {
		e := extras()[extra]
		if e.bytes > size {
			continue
		}
		value[e.name] = e.make(g)
		size -= e.bytes
	}
	value["text"] = g.text(size)
	if odd {
		g.spoil(value)
	}
	return value, odd
}

// spoil adds what keeps a reader of JSON from finding the record's CID.
func (g generator) spoil(value map[string]any) {
	if g.rng.IntN(2) == 0 {
		value["avatar"] = map[string]any{"cid": g.link(cid.Raw).String(), "mimeType": "image/jpeg"}
		return
	}
	value["rating"] = float64(g.rng.IntN(9)) + 0.5
}

// text is about size bytes of words, some of them not ASCII, some that need an
// escape in JSON.
func (g generator) text(size int) string {
	var b strings.Builder
	for b.Len() < size {
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(pick(g.rng, words()))
	}
	if b.Len() == 0 {
		return pick(g.rng, words())
	}
	return b.String()
}

func (g generator) link(codec uint64) cid.Cid {
	var content [16]byte
	for i := range content {
		content[i] = byte(g.rng.IntN(256))
	}
	c, err := cid.V1Builder{Codec: codec, MhType: encode.SHA256}.Sum(content[:])
	if err != nil {
		return cid.Undef // not with a hash that is always there
	}
	return c
}

func (g generator) did() string {
	return deriveDID(0, g.rng.IntN(1<<30)).String()
}

// rkey is the key of a new record: mostly the TID that the clock gives.
func (g generator) rkey(c Collection, now *clock) syntax.RecordKey {
	tid := now.next()
	if c.NSID == UnknownCollection && g.rng.Float64() < wordKeyShare {
		return syntax.RecordKey(fmt.Sprintf("%s:%s_~%s", pick(g.rng, plants()), pick(g.rng, plants()), tid))
	}
	return syntax.RecordKey(tid)
}

// extra is an optional member of a generated record.
type extra struct {
	name  string
	bytes int // about its size in JSON
	make  func(generator) any
}

func extras() []extra {
	return []extra{
		{"langs", 22, func(g generator) any {
			return []any{pick(g.rng, []string{"en", "de", "ja", "pt-BR"}), "eo"}
		}},
		{"subject", 190, func(g generator) any {
			return map[string]any{
				"uri": uriOf(syntax.DID(g.did()), NoteCollection, syntax.RecordKey(syntax.NewTID(WorldStart+g.rng.Int64N(worldSpan), 1))),
				"cid": g.link(cid.DagCBOR).String(),
			}
		}},
		{"root", 90, func(g generator) any { return atdata.CIDLink(g.link(cid.DagCBOR)) }},
		{"proof", 70, func(g generator) any {
			b := make(atdata.Bytes, 1+g.rng.IntN(40))
			for i := range b {
				b[i] = byte(g.rng.IntN(256))
			}
			return b
		}},
		{"image", 170, func(g generator) any {
			return map[string]any{"alt": g.text(20), "image": atdata.Blob{
				Ref: atdata.CIDLink(g.link(cid.Raw)), MimeType: "image/jpeg", Size: 1 + g.rng.Int64N(1_000_000),
			}}
		}},
		{"views", 25, func(g generator) any { return bigNumber - g.rng.Int64N(1<<40) }},
		{"offset", 16, func(g generator) any { return -g.rng.Int64N(1 << 32) }},
		{"pinned", 16, func(g generator) any { return g.rng.IntN(2) == 0 }},
		{"parent", 14, func(generator) any { return nil }},
		{"facets", 140, func(g generator) any {
			return []any{map[string]any{
				"index":    map[string]any{"byteStart": g.rng.Int64N(20), "byteEnd": 20 + g.rng.Int64N(20)},
				"features": []any{map[string]any{"$type": "com.example.note#mention", "did": g.did()}},
			}}
		}},
		{"layout", 80, func(g generator) any {
			return map[string]any{"rows": []any{
				[]any{g.rng.Int64N(100), g.rng.Int64N(100)},
				[]any{},
				map[string]any{},
			}, "title<&>": "a \"quoted\" \\ title\n\u2028"}
		}},
	}
}

func pick[T any](rng *rand.Rand, from []T) T {
	return from[rng.IntN(len(from))]
}

func statuses() []string {
	return []string{"👍", "👎", "💙", "🥹", "😧", "🙃", "😉", "😎", "🥷", "🧑‍💻", "🌱", "☕"}
}

func plants() []string {
	return []string{"basil", "Carrot", "dill", "Leek-2", "mint", "rue.wild", "Sage", "thyme"}
}

func words() []string {
	return []string{
		"a", "the", "today", "we", "planted", "garden", "notes", "from", "an", "early", "morning", "walk,",
		"über", "straße", "naïve", "café", "日本語の", "テスト", "привет", "мир", "שלום", "🌍", "👩‍🚀", "1,024",
		"https://example.com/a?b=c&d=e", "<em>", "\"so", "to", "say\"", "back\\slash", "line\nbreak", "and", "more.",
	}
}
