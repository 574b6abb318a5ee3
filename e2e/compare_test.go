//go:build e2e

package e2e

import (
	"maps"
	"strings"
	"testing"
)

// TestCompareSeesEveryDifference guards the judge: a comparison that overlooks
// something would let everything else here pass.
func TestCompareSeesEveryDifference(t *testing.T) {
	t.Parallel()
	const a, b = "at://did:plc:a/com.example.e2e.note/1", "at://did:plc:a/com.example.e2e.note/2"
	truth := map[string]listed{
		a: {URI: a, CID: "one", Value: map[string]any{"n": "1", "list": []any{nil, "x"}}},
		b: {URI: b, CID: "two", Value: map[string]any{}},
	}
	same := map[string]line{}
	for uri, r := range truth {
		same[uri] = line{listed: r}
	}
	if err := compare(truth, same); err != nil {
		t.Errorf("equal sides: %v", err)
	}
	change := func(uri string, cid string, value any) func(map[string]line) {
		return func(m map[string]line) { m[uri] = line{listed: listed{URI: uri, CID: cid, Value: value}} }
	}
	for want, damage := range map[string]func(map[string]line){
		"missing " + b:     func(m map[string]line) { delete(m, b) },
		"extra " + b + "0": change(b+"0", "two", map[string]any{}),
		"cid of " + b:      change(b, "one", map[string]any{}),
		"value of " + a:    change(a, "one", map[string]any{"n": "1", "list": []any{"x"}}),
	} {
		index := maps.Clone(same)
		damage(index)
		if err := compare(truth, index); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("compare says %v, want %q", err, want)
		}
	}
}
