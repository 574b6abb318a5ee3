package network

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"appview/internal/network/hosttest"
	"appview/internal/network/outcome"
	"appview/internal/network/repo"
)

func TestListRecordsReadsPagesAsTheyAre(t *testing.T) {
	t.Parallel()
	deep := repeat("[", 10_000) + repeat("]", 10_000)
	host := hosttest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if r.URL.Path != "/xrpc/com.atproto.repo.listRecords" || q.Get("repo") != alice.String() || q.Get("collection") != status.String() ||
			q.Get("limit") != "100" || q.Get("cursor") != "a+/=&%" || len(q) != 4 {
			t.Errorf("asked %s", r.URL)
		}
		hosttest.Says(200, "application/json", ` {"records":[
			{"uri":"at://x/y/\u007a","cid":"c","value": {"a":[1.0,"\ud800<"],"a":{}} ,"more":1},
			{"value":`+deep+`,"uri":7,"cid":null},
			{"value":"`+"\xff"+`"}, {}, [1], null,
			{"uri":"at://x/y/z","cid":"c","value":{},"uri":"at://x/y/w"}, {"uri":"at://x/y/z","cid":"c","cid":"c"},
			{"value":{"a":1},"uri":"at://x/y/z","\u0076alue":{"a":2}}],
			"cursor":"next","more":{"records":[]}}`)(w, r)
	})
	p, err := newClient(t, Config{}).ListRecords(t.Context(), host, alice, status, "a+/=&%")
	if err != nil || p.Cursor != "next" || len(p.Records) != 9 {
		t.Fatalf("got %d records, cursor %q, %v", len(p.Records), p.Cursor, err)
	}
	if r := p.Records[0]; r.URI != "at://x/y/z" || r.CID != "c" || string(r.Value) != `{"a":[1.0,"\ud800<"],"a":{}}` {
		t.Errorf("first is %+v", r)
	}
	if r := p.Records[1]; r.URI != "" || r.CID != "" || string(r.Value) != deep {
		t.Errorf("second is %.100v", r)
	}
	for _, r := range p.Records[3:] {
		if r.URI != "" || r.CID != "" || r.Value != nil {
			t.Errorf("got %+v, want nothing", r)
		}
	}
}

func TestListRecordsAsksForFewerWhenAPageIsTooLarge(t *testing.T) {
	t.Parallel()
	for fits, want := range map[int][]int{100: {100}, 20: {100, 20}, 1: {100, 20, 4, 1}, 0: {100, 20, 4, 1}} {
		var mu sync.Mutex
		var asked []int
		host := hosttest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
			limit, err := strconv.Atoi(r.URL.Query().Get("limit"))
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			asked = append(asked, limit)
			mu.Unlock()
			if limit > fits {
				hosttest.Huge(w, r)
				return
			}
			hosttest.Says(200, "application/json", `{"records":[]}`)(w, r)
		})
		p, err := page(t, newClient(t, Config{}), host)
		if fits == 0 {
			wantReason(t, err, outcome.ReasonTooLarge)
		} else if err != nil || p.Limit != fits {
			t.Errorf("%d: a page of %d, %v", fits, p.Limit, err)
		}
		if !slices.Equal(asked, want) {
			t.Errorf("%d fit: asked for %v, want %v", fits, asked, want)
		}
	}
}

func TestDescribeRepo(t *testing.T) {
	t.Parallel()
	names := func(n int) string {
		list := make([]string, n)
		for i := range list {
			list[i] = fmt.Sprintf(`"com.example.n%d"`, i)
		}
		return `{"did":"` + alice.String() + `","handle":"a.test","didDoc":{"id":[[]]},"collections":[` + strings.Join(list, ",") + `]}`
	}
	for name, c := range map[string]struct {
		body     string
		want     int
		rejected int
		err      outcome.Reason
	}{
		"some":            {names(3), 3, 0, ""},
		"none":            {names(0), 0, 0, ""},
		"the most":        {names(repo.MaxCollections), repo.MaxCollections, 0, ""},
		"too many":        {names(repo.MaxCollections + 1), 0, 0, outcome.ReasonTooLarge},
		"invalid":         {`{"did":"` + alice.String() + `","collections":["x","com.example.a",7,null,{}]}`, 1, 2, ""},
		"named twice":     {`{"did":"` + alice.String() + `","collections":["com.example.a","com.example.no_te","com.example.no_te","com.example.\u0061"]}`, 1, 1, ""},
		"upper case":      {`{"did":"` + alice.String() + `","collections":["com.EXAMPLE.note","COM.example.note","com.example.NOTE"]}`, 1, 2, ""},
		"another's":       {`{"did":"did:plc:b","collections":[]}`, 0, 0, outcome.ReasonBadAnswer},
		"no collections":  {`{"did":"` + alice.String() + `"}`, 0, 0, outcome.ReasonBadAnswer},
		"not collections": {`{"did":"` + alice.String() + `","collections":"x"}`, 0, 0, outcome.ReasonBadAnswer},
	} {
		host := hosttest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/xrpc/com.atproto.repo.describeRepo" || r.URL.Query().Get("repo") != alice.String() {
				t.Errorf("asked %s", r.URL)
			}
			hosttest.Says(200, "application/json", c.body)(w, r)
		})
		got, err := newClient(t, Config{}).DescribeRepo(t.Context(), host, alice)
		if reasonOf(err) != string(c.err) || len(got.Collections) != c.want || got.Rejected.Count != c.rejected {
			t.Errorf("%s: got %d and %d rejected, %v, want %d, %d, %s", name, len(got.Collections), got.Rejected.Count, err, c.want, c.rejected, c.err)
		}
	}
}

func BenchmarkReadRecords(b *testing.B) {
	one := `{"uri":"at://did:plc:aaaaaaaaaaaaaaaaaaaaaaaa/xyz.statusphere.status/3kgk4qs6aa22a","cid":"bafyreigbtj4x7ip5legnfznufuopl4sg4knzc2cof6duas4b3q2fy6swua","value":{"$type":"xyz.statusphere.status","text":"` + repeat("a plain sentence. ", 20) + `","createdAt":"2026-01-02T03:04:05.678Z"}}`
	body := []byte(`{"records":[` + strings.TrimSuffix(repeat(one+",", 100), ",") + `],"cursor":"c"}`)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := readRecords(body); err != nil {
			b.Fatal(err)
		}
	}
}

func TestPageThatSaysTwoThingsIsNone(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"cursors": `{"records":[],"cursor":"a","cursor":"b"}`, "a cursor and none": `{"cursor":null,"records":[],"cursor":"b"}`,
		"records": `{"records":[],"records":[]}`, "an escaped cursor": `{"records":[],"cursor":"a","\u0063ursor":"a"}`,
	} {
		if _, err := page(t, newClient(t, Config{}), hosttest.Serve(t, hosttest.Says(200, "application/json", body))); reasonOf(err) != string(outcome.ReasonBadAnswer) {
			t.Errorf("two %s: got %v, want a bad answer", name, err)
		}
	}
}

func TestPagesThatMakeNoSense(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"wrong shape":        `{"records":{}}`,
		"no records":         `{"cursor":"a"}`,
		"cursor is a number": `{"records":[],"cursor":7}`,
		"endless cursor":     `{"records":[],"cursor":"` + repeat("a", maxCursor+1) + `"}`,
		"very deep":          `{"records":` + repeat("[", 1<<20),
		"too many records":   `{"records":[` + repeat("{},", maxListed) + `{}]}`,
	} {
		if _, err := page(t, newClient(t, Config{}), hosttest.Serve(t, hosttest.Says(200, "application/json", body))); reasonOf(err) != string(outcome.ReasonBadAnswer) {
			t.Errorf("%s: got %v, want a bad answer", name, err)
		}
	}
}
