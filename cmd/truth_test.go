package cmd

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"appview/internal/sandbox"
)

// answers asks a server for everything that it tells about records, and compares
// that with what the world holds.
type answers struct {
	t     *testing.T
	dir   string
	world *sandbox.World
	truth map[string]sandbox.Record
	c     *client
}

// wantTruth fails unless every answer of the server on a data directory is what the
// world holds: the export, XRPC, the lists in both orders, and the counts.
func wantTruth(t *testing.T, world *sandbox.World, dir string) {
	t.Helper()
	c, err := (&program{}).newClient(clientOptions{dataDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	a := &answers{t: t, dir: dir, world: world, truth: world.Truth(), c: c}
	a.export()
	a.repos()
	a.lists()
	a.counts()
}

// answered is a record as any of the answers has it.
type answered struct {
	URI       string          `json:"uri"`
	CID       string          `json:"cid"`
	RKey      string          `json:"rkey"`
	IndexedAt string          `json:"indexed_at"`
	Value     json.RawMessage `json:"value"`
}

func (a *answers) get(path string, into any) {
	a.t.Helper()
	if _, err := a.c.get(a.t.Context(), path, into); err != nil {
		a.t.Fatalf("%s: %v", path, err)
	}
}

// same fails unless the records are those of the truth that are chosen.
func (a *answers) same(what string, got []answered, chosen func(sandbox.Record) bool) {
	a.t.Helper()
	want := maps.Clone(a.truth)
	maps.DeleteFunc(want, func(_ string, r sandbox.Record) bool { return !chosen(r) })
	wrong := 0
	for _, r := range got {
		rec, ok := want[r.URI]
		if !ok || rec.CID != r.CID || canonical(a.t, rec.Value) != canonical(a.t, r.Value) {
			a.t.Errorf("%s: %s is %s %s, want (there: %t, and not twice) %s %s", what, r.URI, r.CID, r.Value, ok, rec.CID, rec.Value)
			if wrong++; wrong == 3 {
				break
			}
		}
		delete(want, r.URI)
	}
	if len(want) > 0 && wrong == 0 {
		a.t.Errorf("%s: %d records are missing, among them %s", what, len(want), slices.Sorted(maps.Keys(want))[0])
	}
}

func (a *answers) export() {
	a.t.Helper()
	var got []answered
	lines := bufio.NewScanner(strings.NewReader(want(a.t, exitOK, "", nil, "records", "export", "--data-dir", a.dir)))
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		var r answered
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			a.t.Fatalf("export: %v", err)
		}
		got = append(got, r)
	}
	if err := lines.Err(); err != nil {
		a.t.Fatalf("export: %v", err)
	}
	a.same("export", got, func(sandbox.Record) bool { return true })
}

// repos lists every collection of every repo over XRPC, in both directions, and asks
// for the first and the last record alone.
func (a *answers) repos() {
	a.t.Helper()
	type place struct{ did, collection string }
	places := map[place]bool{}
	for _, r := range a.truth {
		places[place{r.DID.String(), r.Collection.String()}] = true
	}
	for p := range places {
		down, up := a.list(p.did, p.collection, ""), a.list(p.did, p.collection, "true")
		what := fmt.Sprintf("listRecords of %s %s", p.did, p.collection)
		a.same(what, down, func(r sandbox.Record) bool { return r.DID.String() == p.did && r.Collection.String() == p.collection })
		if slices.Reverse(up); !slices.EqualFunc(up, down, func(x, y answered) bool { return x.URI == y.URI }) {
			a.t.Errorf("%s: in reverse it is not the same", what)
		}
		for _, r := range down[:min(1, len(down))] {
			var one answered
			a.get(withQuery("/xrpc/com.atproto.repo.getRecord", "repo", p.did, "collection", p.collection, "rkey", r.URI[strings.LastIndex(r.URI, "/")+1:]), &one)
			if one.URI != r.URI || one.CID != r.CID {
				a.t.Errorf("getRecord of %s: %+v", r.URI, one)
			}
		}
	}
}

func (a *answers) list(repo, collection, reverse string) (all []answered) {
	a.t.Helper()
	for cursor := ""; ; {
		var page struct {
			Records []answered
			Cursor  string
		}
		a.get(withQuery("/xrpc/com.atproto.repo.listRecords", "repo", repo, "collection", collection, "limit", "50", "cursor", cursor, "reverse", reverse), &page)
		all = append(all, page.Records...)
		if cursor = page.Cursor; cursor == "" {
			return all
		}
	}
}

// collections are those of which the world holds records.
func (a *answers) collections() []string {
	names := map[string]bool{}
	for _, r := range a.truth {
		names[r.Collection.String()] = true
	}
	return slices.Sorted(maps.Keys(names))
}

// lists reads every collection across repos in both orders.
func (a *answers) lists() {
	a.t.Helper()
	for _, c := range a.collections() {
		for _, order := range []string{"indexed", "rkey"} {
			var all []answered
			for cursor := ""; ; {
				var page struct {
					Records []answered
					Cursor  *string
				}
				a.get(withQuery("/api/records", "collection", c, "order", order, "limit", "100", "cursor", cursor), &page)
				all = append(all, page.Records...)
				if page.Cursor == nil || *page.Cursor == "" {
					break
				}
				cursor = *page.Cursor
			}
			what := fmt.Sprintf("%s by %s", c, order)
			a.same(what, all, func(r sandbox.Record) bool { return r.Collection.String() == c })
			for i := range all[:max(len(all)-1, 0)] {
				if before, after := all[i], all[i+1]; (order == "rkey" && before.RKey < after.RKey) || (order == "indexed" && before.IndexedAt < after.IndexedAt) {
					a.t.Errorf("%s: %s comes before %s", what, before.URI, after.URI)
				}
			}
		}
	}
}

func (a *answers) counts() {
	a.t.Helper()
	var stats struct {
		Collections map[string]struct{ Records, Repos int64 }
	}
	a.get("/admin/stats", &stats)
	want := map[string]string{}
	for _, c := range a.collections() {
		n, repos := 0, map[string]bool{}
		for _, r := range a.truth {
			if r.Collection.String() == c {
				n++
				repos[r.DID.String()] = true
			}
		}
		want[c] = strconv.Itoa(n) + " of " + strconv.Itoa(len(repos))
	}
	got := map[string]string{}
	for c, n := range stats.Collections {
		got[c] = fmt.Sprintf("%d of %d", n.Records, n.Repos)
	}
	if !maps.Equal(got, want) {
		a.t.Errorf("counts are %v, want %v", got, want)
	}
}

// canonical prints JSON in one form, so that only the value counts.
func canonical(t *testing.T, value []byte) string {
	t.Helper()
	var v any
	if err := json.Unmarshal(value, &v); err != nil {
		t.Fatalf("value %s: %v", value, err)
	}
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}
