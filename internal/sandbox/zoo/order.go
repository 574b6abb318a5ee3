package zoo

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/sandbox"
)

// fewOnAPage is how many records the zoo's hosts of another order put on a page.
const fewOnAPage = 4

func orderZoo() []Behaviour {
	return []Behaviour{
		UpwardPages(fewOnAPage), InclusiveCursor(fewOnAPage), CreationOrder(fewOnAPage), ShiftingOrder(fewOnAPage), WrappingPages(fewOnAPage), CyclingCursors(),
	}
}

// pager lists a collection its own way. The reference PDS lists the highest key first,
// with a cursor that names the last one and is not listed again.
type pager struct {
	most   int  // records on a page
	repeat bool // a page begins with the last record of the one before
	always bool // the last page has a cursor too
	wraps  bool // behind the last record comes the first
	skips  bool // the first record behind each page is left out

	// arrange puts records into the order in which they are listed. They come with the
	// lowest key first. begun is how often this listing was begun before.
	arrange func(records []sandbox.Entry, begun int)
	// place is the cursor that leads to a record, which is the nth.
	place func(r sandbox.Request, rec sandbox.Entry, nth int) string
}

// behaviour is that of a host that lists so.
func (p pager) behaviour(b Behaviour) Behaviour {
	var mu sync.Mutex
	begun := map[string]int{} // listings, by DID and collection
	b.fault = onPages(func(w *sandbox.World, r sandbox.Request, l *listedPage) {
		all := w.Entries(syntax.DID(r.DID), r.Collection)
		if len(all) == 0 && r.Cursor == "" {
			return
		}
		mu.Lock()
		of := r.DID + " " + r.Collection.String()
		if r.Cursor == "" {
			begun[of]++
		}
		n := begun[of] - 1
		mu.Unlock()
		p.arrange(all, n)
		p.list(r, all, l)
	})
	return b
}

// list fills the page that a request asks for.
func (p pager) list(r sandbox.Request, all []sandbox.Entry, l *listedPage) {
	from := 0
	if r.Cursor != "" {
		for i, rec := range all {
			if p.place(r, rec, i) == r.Cursor {
				from = i + 1
				break
			}
		}
		if from > 0 && p.repeat {
			from--
		}
	}
	if p.skips && from > 0 {
		from++
	}
	most := p.most
	if r.Limit > 0 {
		most = min(most, r.Limit)
	}
	if p.wraps && from >= len(all) {
		from = 0
	}
	from = min(from, len(all))
	to := min(from+most, len(all))
	l.Records, l.Cursor = nil, ""
	for _, rec := range all[from:to] {
		l.Records = append(l.Records, json.RawMessage(rec.Item))
	}
	if p.wraps && len(all) == 1 {
		l.Records = append(l.Records, l.Records...) // alone it would be the end of an inclusive cursor
	}
	if to > from && (to < len(all) || p.always || p.wraps) {
		l.Cursor = p.place(r, all[to-1], to-1)
	}
}

// byKey is the cursor of a host that names the last record.
func byKey(_ sandbox.Request, rec sandbox.Entry, _ int) string { return rec.RKey.String() }

// byPath is the cursor of a host that names the collection too.
func byPath(r sandbox.Request, rec sandbox.Entry, _ int) string {
	return r.Collection.String() + "/" + rec.RKey.String()
}

// byNumber is the cursor of a host that counts the records.
func byNumber(_ sandbox.Request, _ sandbox.Entry, nth int) string { return "n" + strconv.Itoa(nth) }

func upwards([]sandbox.Entry, int)             {}
func downwards(records []sandbox.Entry, _ int) { slices.Reverse(records) }

// asCreated is the order of hosts that list by the time of creation, of which the key
// says nothing where a record was written with a key of its writer's choice.
func asCreated(records []sandbox.Entry, _ int) {
	slices.SortStableFunc(records, func(a, b sandbox.Entry) int { return strings.Compare(created(a), created(b)) })
}

// created stands for a time of creation: mostly in the order of keys.
func created(e sandbox.Entry) string {
	if sum := e.CID.Hash(); sum[len(sum)-1]%5 == 0 {
		return string(sum)
	}
	return string(e.RKey)
}

// UpwardPages lists the lowest key first, and each page begins with the last record of the
// one before.
func UpwardPages(most int) Behaviour {
	return pager{most: most, repeat: true, arrange: upwards, place: byPath}.behaviour(Behaviour{Name: "upward pages"})
}

// InclusiveCursor begins each page with the last record of the one before, and gives a
// cursor with every one: the end is where that does not change any more.
func InclusiveCursor(most int) Behaviour {
	return pager{most: most, repeat: true, always: true, arrange: downwards, place: byKey}.behaviour(Behaviour{Name: "inclusive cursor"})
}

// CreationOrder lists by the time of creation, with keys out of place.
func CreationOrder(most int) Behaviour {
	return pager{most: most, arrange: asCreated, place: byNumber}.behaviour(Behaviour{Name: "creation order"})
}

// ShiftingOrder lists downwards, upwards and by the time of creation, in turns.
func ShiftingOrder(most int) Behaviour {
	return pager{most: most, place: byNumber, arrange: func(records []sandbox.Entry, begun int) {
		[]func([]sandbox.Entry, int){downwards, upwards, asCreated}[max(begun, 0)%3](records, begun)
	}}.behaviour(Behaviour{Name: "shifting order"})
}

// WrappingPages goes on from the beginning when it has come to its end, for ever.
func WrappingPages(most int) Behaviour {
	return pager{most: most, wraps: true, arrange: downwards, place: byKey}.behaviour(
		Behaviour{Name: "wrapping pages", Listed: failed("incomplete"), OnRecords: true})
}

// LostTies lists by the time of creation, and loses a record at the border of each page.
func LostTies(most int) Behaviour {
	return pager{most: most, skips: true, arrange: asCreated, place: byNumber}.behaviour(Behaviour{Name: "lost ties"})
}

// CyclingCursors gives the first page for ever, with two cursors by turns.
func CyclingCursors() Behaviour {
	return Behaviour{
		Name: "cycling cursors", Listed: failed("incomplete"), OnRecords: true,
		fault: onPages(func(_ *sandbox.World, r sandbox.Request, l *listedPage) {
			if r.Cursor == "zzzzzzzzzzzz1" {
				l.Cursor = "zzzzzzzzzzzz2"
			} else {
				l.Cursor = "zzzzzzzzzzzz1"
			}
		}),
	}
}
