package server

import (
	"cmp"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/api"
	"appview/store"
	"appview/store/index"
	"appview/store/storetest"
)

// modelSteps is how many changes the model test makes. Each is followed by reads
// of every order.
const modelSteps = 60

// truth is what the index should hold, kept in memory.
type truth struct {
	repos map[syntax.DID]*truthRepo
	clock int // of changes
	known int // repos that have held a record
}

type truthRepo struct {
	account string
	number  int                    // in the order of first records, 0: none yet
	records map[string]truthRecord // by collection/rkey
}

type truthRecord struct {
	uri, rkey, text string
	collection      syntax.NSID
	changed         int
	repo            int // its number
}

// served lists what is served of a collection, sorted by less.
func (m *truth) served(collection syntax.NSID, did syntax.DID, less func(a, b truthRecord) int) []string {
	var list []truthRecord
	for d, repo := range m.repos {
		for _, rec := range repo.records {
			if repo.account == index.AccountActive && (collection == "" || rec.collection == collection) && (did == "" || d == did) {
				list = append(list, rec)
			}
		}
	}
	slices.SortFunc(list, less)
	uris := make([]string, len(list))
	for i, rec := range list {
		uris[i] = rec.uri
	}
	return uris
}

func latestChange(a, b truthRecord) int { return cmp.Compare(b.changed, a.changed) }

// highestKey sorts records with the same key, of which the test makes some, by the
// number of their repo.
func highestKey(a, b truthRecord) int {
	return cmp.Or(cmp.Compare(b.rkey, a.rkey), cmp.Compare(b.repo, a.repo))
}

func byCollection(a, b truthRecord) int {
	return cmp.Or(cmp.Compare(a.collection, b.collection), highestKey(a, b))
}

// settle makes a repo hold the given texts by collection and record key.
func (m *truth) settle(r *rig, did syntax.DID, account string, held map[syntax.NSID]map[string]string) {
	r.t.Helper()
	repo := m.repos[did]
	if repo == nil {
		repo = &truthRepo{records: map[string]truthRecord{}}
		m.repos[did] = repo
	}
	repo.account = account
	read := map[syntax.NSID][]index.Listed{}
	for c, texts := range held {
		read[c] = nil
		maps.DeleteFunc(repo.records, func(_ string, rec truthRecord) bool {
			_, stays := texts[rec.rkey]
			return rec.collection == c && !stays
		})
		for _, rkey := range slices.Sorted(maps.Keys(texts)) {
			read[c] = append(read[c], text(r.t, rkey, texts[rkey]))
		}
		slices.Reverse(read[c])
	}
	// The store numbers the changes of a listing from its end: the lowest key first.
	for _, c := range slices.Sorted(maps.Keys(read)) {
		for _, l := range slices.Backward(read[c]) {
			key, value := string(c)+"/"+string(l.RKey), held[c][string(l.RKey)]
			if had, ok := repo.records[key]; !ok || had.text != value {
				if m.clock++; repo.number == 0 {
					m.known++
					repo.number = m.known
				}
				repo.records[key] = truthRecord{"at://" + string(did) + "/" + key, string(l.RKey), value, c, m.clock, repo.number}
			}
		}
	}
	for _, c := range slices.Sorted(maps.Keys(read)) { // one collection a job, so that their order is known
		r.settle(did, account, map[syntax.NSID][]index.Listed{c: read[c]})
	}
	if len(read) == 0 {
		r.settle(did, account, nil)
	}
}

// change makes one random change.
func (m *truth) change(r *rig, random *rand.Rand, dids []syntax.DID) {
	did := dids[random.IntN(len(dids))]
	c := []syntax.NSID{note, status}[random.IntN(2)]
	switch random.IntN(10) {
	case 0:
		account := []string{index.AccountDeactivated, index.AccountTakenDown, index.AccountActive}[random.IntN(3)]
		m.settle(r, did, account, nil)
	case 1:
		a := r.do(http.MethodDelete, "/admin/records?did="+string(did)+"&collection="+string(c), "")
		if a.status != http.StatusOK {
			r.t.Fatalf("delete: %d %s", a.status, a.body)
		}
		if repo := m.repos[did]; repo != nil {
			maps.DeleteFunc(repo.records, func(_ string, rec truthRecord) bool { return rec.collection == c })
		}
	case 2:
		_, err := r.store.Index.IndexKeys(r.t.Context(), c)
		r.check(err)
	default:
		held := map[string]string{}
		if repo := m.repos[did]; repo != nil {
			for _, rec := range repo.records {
				if rec.collection == c && random.IntN(4) > 0 {
					held[rec.rkey] = rec.text
				}
			}
		}
		for range random.IntN(8) {
			held[fmt.Sprintf("%s-%03d", did[len(did)-3:], random.IntN(400))] = fmt.Sprint(random.IntN(3))
		}
		m.settle(r, did, index.AccountActive, map[syntax.NSID]map[string]string{c: held})
	}
}

// orders are the lists that the API has, with what they should hold.
func (m *truth) orders(dids []syntax.DID) map[string][]string {
	all := map[string][]string{}
	for _, c := range []syntax.NSID{note, status} {
		all["/api/records?collection="+string(c)] = m.served(c, "", latestChange)
		all["/admin/records?order=rkey&collection="+string(c)] = m.served(c, "", highestKey)
		all["/api/records?order=rkey&collection="+string(c)] = m.served(c, "", highestKey)
		for _, did := range dids {
			one := m.served(c, did, highestKey)
			all[fmt.Sprintf("/admin/records?did=%s&collection=%s", did, c)] = one
			if repo := m.repos[did]; repo != nil && repo.number > 0 && repo.account == index.AccountActive {
				path := fmt.Sprintf("%s?repo=%s&collection=%s", listRecords, did, c)
				all[path] = one
				one = slices.Clone(one)
				slices.Reverse(one)
				all[path+"&reverse=true"] = one
			}
		}
	}
	for _, did := range dids {
		all["/api/records?did="+string(did)] = m.served("", did, byCollection)
	}
	return all
}

func TestEveryPageOfEveryOrderEqualsAModel(t *testing.T) {
	storetest.Long(t)
	t.Parallel()
	r := newRig(t)
	random := rand.New(rand.NewPCG(7, 11))
	m := &truth{repos: map[syntax.DID]*truthRepo{}}
	dids := []syntax.DID{alice, bob, carol, "did:web:dave.example"}
	for step := range modelSteps {
		m.change(r, random, dids)
		for path, want := range m.orders(dids) {
			limit := 1 + random.IntN(40)
			got := slices.Concat(r.pages(fmt.Sprintf("%s&limit=%d", path, limit))...)
			if !slices.Equal(got, want) {
				t.Fatalf("step %d: %s&limit=%d: %d records, want %d: beside the others %v, missing %v",
					step, path, limit, len(got), len(want), without(got, want), without(want, got))
			}
		}
	}
	if m.clock < modelSteps {
		t.Errorf("only %d records were written", m.clock)
	}
}

func TestCursorTakenBeforeAChangeGivesEachUntouchedRecordOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	random := rand.New(rand.NewPCG(3, 5))
	m := &truth{repos: map[syntax.DID]*truthRepo{}}
	dids := []syntax.DID{alice, bob, carol, "did:web:dave.example"}
	for range 20 {
		m.change(r, random, dids)
	}
	for _, did := range dids {
		m.settle(r, did, index.AccountActive, nil)
	}
	for path, before := range m.orders(dids) {
		if len(before) < 4 {
			continue
		}
		changed := map[string]int{}
		for uri, rec := range m.all() {
			changed[uri] = rec.changed
		}
		var got []string
		for next, n := path+"&limit=2", 0; next != ""; n++ {
			var p api.Records
			r.get(next).decode(t, &p)
			for _, rec := range p.Records {
				got = append(got, rec.URI)
			}
			if next = ""; p.Cursor != "" {
				next = path + "&limit=2&cursor=" + url.QueryEscape(p.Cursor)
			}
			if n < 3 { // other records come, go and change between the pages
				did := dids[n%len(dids)]
				m.settle(r, did, index.AccountActive, map[syntax.NSID]map[string]string{note: {
					fmt.Sprintf("%s-%03d", did[len(did)-3:], random.IntN(400)): fmt.Sprint(random.Int()),
				}})
			}
		}
		now := m.all()
		for _, uri := range before {
			rec, there := now[uri]
			seen := 0
			for _, g := range got {
				if g == uri {
					seen++
				}
			}
			if untouched := there && rec.changed == changed[uri]; untouched && seen != 1 || seen > 1 && !strings.Contains(path, "/api/records?coll") {
				t.Errorf("%s: %s came %d times", path, uri, seen)
			}
		}
	}
}

// all is every record by its URI.
func (m *truth) all() map[string]truthRecord {
	all := map[string]truthRecord{}
	for _, repo := range m.repos {
		for _, rec := range repo.records {
			all[rec.uri] = rec
		}
	}
	return all
}

func TestCursorsOutliveTheProcess(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "appview.db")
	reopened := func() (*rig, func()) {
		st, err := store.Open(store.Config{Path: path, FlushEvery: time.Millisecond, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		r := newRig(t, func(c *Config) { c.Store = st })
		r.store = st
		return r, func() { r.http.Close(); r.check(st.Close()) }
	}
	r, end := reopened()
	for _, did := range []syntax.DID{alice, bob} {
		r.settle(did, index.AccountActive, map[syntax.NSID][]index.Listed{note: texts(t, 9), status: texts(t, 2)})
	}
	first := map[string]api.Records{}
	rest := map[string]string{}
	for _, path := range openReads()[:4] {
		var p api.Records
		r.get(path+"&limit=4").decode(t, &p)
		if p.Cursor == "" {
			t.Fatalf("%s has no cursor", path)
		}
		first[path] = p
		rest[path] = r.get(path + "&limit=4&cursor=" + url.QueryEscape(p.Cursor)).body
	}
	end()
	again, end := reopened()
	t.Cleanup(end)
	for path, p := range first {
		if a := again.get(path + "&limit=4&cursor=" + url.QueryEscape(p.Cursor)); a.status != 200 || a.body != rest[path] {
			t.Errorf("%s: %d %s, before the restart %s", path, a.status, a.body, rest[path])
		}
	}
}

// without is what of a is not in b.
func without(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(uri string) bool { return slices.Contains(b, uri) })
}
