package zoo

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/sandbox"
)

const (
	// deepLevels is how deep DeepRecord nests.
	deepLevels = 10_000
	// oversize is the length of the text of OversizedRecord: past what a record
	// may have, and short of what makes a page a long one.
	oversize = 5 << 18
	// crowded is the most that MoreThanTheLimit puts on a page.
	crowded = 900
)

func listZoo() []Behaviour {
	return []Behaviour{
		RepeatedCursor(), EndlessPages(), EmptyPages(), EmptyFirstPage(), ShortPages(4, 0), ShuffledPages(), DuplicateRecords(), MoreThanTheLimit(),
		ForeignRepo(), ForeignCollection(), InvalidRecordKey(), WrongCID(), DeepRecord(), OversizedRecord(),
		DuplicateMember(), InvalidUTF8(), TruncatedJSON(), HTMLListing(), PlainListing(), GzipBomb(), EndlessBody(), DrippingBody(), CutListing(),
	}
}

// listedPage is a page of records with its entries as they are.
type listedPage struct {
	Records []json.RawMessage `json:"records"`
	Cursor  string            `json:"cursor,omitempty"`
}

// encode writes the page without looking at its entries, which may be no JSON.
func (l listedPage) encode() []byte {
	b := append([]byte(nil), `{"records":[`...)
	for i, r := range l.Records {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, r...)
	}
	b = append(b, ']')
	if l.Cursor != "" {
		cursor, _ := json.Marshal(l.Cursor) // it never fails
		b = append(append(b, `,"cursor":`...), cursor...)
	}
	return append(b, '}')
}

// onPages changes every page that is listed.
func onPages(change func(w *sandbox.World, r sandbox.Request, l *listedPage)) func(*sandbox.World, sandbox.Request) sandbox.Fault {
	return func(w *sandbox.World, r sandbox.Request) sandbox.Fault {
		if r.Method != sandbox.MethodListRecords {
			return sandbox.Fault{}
		}
		return sound(func(a sandbox.Answer) sandbox.Answer {
			var l listedPage
			if json.Unmarshal(a.Body, &l) == nil {
				change(w, r, &l)
				a.Body = l.encode()
			}
			return a
		})
	}
}

// onFirst changes the first record of every page.
func onFirst(change func(r sandbox.Request, entry string) string) func(*sandbox.World, sandbox.Request) sandbox.Fault {
	return onPages(func(_ *sandbox.World, r sandbox.Request, l *listedPage) {
		if len(l.Records) > 0 {
			l.Records[0] = json.RawMessage(change(r, string(l.Records[0])))
		}
	})
}

// rejecting is a behaviour that costs single records, some of which may be any. A
// reader that doubts the listing finds the truth in the CAR.
func rejecting(name string, fault func(*sandbox.World, sandbox.Request) sandbox.Fault) Behaviour {
	return Behaviour{Name: name, Listed: failed("rejected"), OnRecords: true, fault: fault}
}

// RepeatedCursor gives the same page with the same cursor for ever. A record alone is listed
// twice, or the page would be the end of an inclusive cursor.
func RepeatedCursor() Behaviour {
	return Behaviour{
		Name: "repeated cursor", Listed: failed("incomplete"), OnRecords: true,
		fault: onPages(func(_ *sandbox.World, _ sandbox.Request, l *listedPage) {
			if l.Cursor = "zzzzzzzzzzzzz"; len(l.Records) == 1 {
				l.Records = append(l.Records, l.Records[0])
			}
		}),
	}
}

// EndlessPages has another record, and another cursor, behind every page. A
// reader that gives up listing finds the truth in the CAR.
func EndlessPages() Behaviour {
	endless := endlessPages("endless pages", 1, func(r sandbox.Request, key syntax.RecordKey, n int) (string, error) {
		return madeUp(r, key, map[string]any{"n": n})
	})
	endless.Listed, endless.OnRecords = failed("too_large"), true
	return endless
}

// endlessPages has so many made-up records behind the true ones, and as many on every
// page that follows, each below all that came before.
func endlessPages(name string, each int, entry func(r sandbox.Request, key syntax.RecordKey, n int) (string, error)) Behaviour {
	return Behaviour{Name: name, fault: onPages(func(_ *sandbox.World, r sandbox.Request, l *listedPage) {
		if len(l.Records) > 0 {
			return // the true ones come first, and the host gives a cursor with them
		}
		n := 0
		if s, ok := strings.CutPrefix(r.Cursor, "222-"); ok {
			n, _ = strconv.Atoi(s) // our own
		}
		for range each {
			n++
			made, err := entry(r, syntax.RecordKey(fmt.Sprintf("222-%09d", 999_999_999-n)), n) // below every TID, and descending
			if err != nil {
				return
			}
			l.Records = append(l.Records, json.RawMessage(made))
		}
		l.Cursor = fmt.Sprintf("222-%d", n)
	})}
}

// madeUp is the entry of a sound record that is not in its repo.
func madeUp(r sandbox.Request, key syntax.RecordKey, value map[string]any) (string, error) {
	value["$type"] = r.Collection.String()
	made, err := sandbox.MakeEntry(syntax.DID(r.DID), r.Collection, key, value)
	return string(made.Item), err
}

// EmptyPages gives nothing but cursors, each a new one.
func EmptyPages() Behaviour {
	return Behaviour{Name: "empty pages", Listed: failed("incomplete"), fault: onPages(func(_ *sandbox.World, r sandbox.Request, l *listedPage) {
		l.Records, l.Cursor = nil, r.Cursor+"z"
	})}
}

// EmptyFirstPage begins every listing with an empty page that has a cursor.
func EmptyFirstPage() Behaviour {
	return Behaviour{Name: "empty first page", fault: onPages(func(_ *sandbox.World, r sandbox.Request, l *listedPage) {
		if r.Cursor == "" {
			l.Records, l.Cursor = nil, "zzzzzzzzzzzzz"
		}
	})}
}

// ShortPages gives no more than so many records at once, whatever is asked for,
// from the repo on that is asked for after so many others: a page that is not full
// is not the last one then.
func ShortPages(most, after int) Behaviour {
	var mu sync.Mutex
	met := map[string]int{} // the repos, in the order in which they were asked for
	shorten := onPages(func(_ *sandbox.World, _ sandbox.Request, l *listedPage) {
		if len(l.Records) <= most {
			return
		}
		var last struct{ URI string }
		if json.Unmarshal(l.Records[most-1], &last) == nil {
			l.Records, l.Cursor = l.Records[:most], last.URI[strings.LastIndexByte(last.URI, '/')+1:]
		}
	})
	return Behaviour{Name: "short pages", fault: func(w *sandbox.World, r sandbox.Request) sandbox.Fault {
		if r.Method != sandbox.MethodListRecords {
			return sandbox.Fault{}
		}
		mu.Lock()
		defer mu.Unlock()
		if _, ok := met[r.DID]; !ok {
			met[r.DID] = len(met)
		}
		if met[r.DID] < after {
			return sandbox.Fault{}
		}
		return shorten(w, r)
	}}
}

// ShuffledPages lists every page the wrong way round.
func ShuffledPages() Behaviour {
	return Behaviour{Name: "shuffled pages", fault: onPages(func(_ *sandbox.World, _ sandbox.Request, l *listedPage) { slices.Reverse(l.Records) })}
}

// DuplicateRecords lists every record twice.
func DuplicateRecords() Behaviour {
	return Behaviour{Name: "duplicate records", fault: onPages(func(_ *sandbox.World, _ sandbox.Request, l *listedPage) {
		l.Records = slices.Concat(l.Records, l.Records)
	})}
}

// MoreThanTheLimit lists a whole collection on one page, whatever was asked for.
func MoreThanTheLimit() Behaviour {
	return Behaviour{Name: "more than the limit", fault: onPages(func(w *sandbox.World, r sandbox.Request, l *listedPage) {
		if r.Cursor != "" {
			return
		}
		all := w.Entries(syntax.DID(r.DID), r.Collection)
		all = all[max(0, len(all)-crowded):]
		l.Records = nil
		for _, rec := range slices.Backward(all) {
			l.Records = append(l.Records, rec.Item)
		}
		if len(all) < crowded {
			l.Cursor = ""
		}
	})}
}

// ForeignRepo lists records under the URIs of another repo.
func ForeignRepo() Behaviour {
	return rejecting("foreign repo", onFirst(func(r sandbox.Request, entry string) string {
		return strings.Replace(entry, "at://"+r.DID, "at://did:plc:zzzzzzzzzzzzzzzzzzzzzzzz", 1)
	}))
}

// ForeignCollection lists records of another collection.
func ForeignCollection() Behaviour {
	return rejecting("foreign collection", onFirst(func(r sandbox.Request, entry string) string {
		return strings.Replace(entry, "/"+r.Collection.String()+"/", "/com.example.foreign/", 1)
	}))
}

// InvalidRecordKey lists a record under a key that nobody may have.
func InvalidRecordKey() Behaviour {
	return rejecting("invalid record key", onFirst(func(r sandbox.Request, entry string) string {
		return strings.Replace(entry, "/"+r.Collection.String()+"/", "/"+r.Collection.String()+"/no key/", 1)
	}))
}

// WrongCID lists a record with the CID of another one, and nothing in it that may have
// been printed otherwise.
func WrongCID() Behaviour {
	return rejecting("wrong cid", onFirst(func(r sandbox.Request, entry string) string { return wrongCID(instead(r, entry, `"text":"wrong"`)) }))
}

// inValue adds a member to the value of an entry.
func inValue(entry, member string) string {
	return strings.Replace(entry, `"value":{`, `"value":{`+member+",", 1)
}

// DeepRecord lists a record that nests 10,000 deep.
func DeepRecord() Behaviour {
	deep := `"deep":` + strings.Repeat("[", deepLevels) + strings.Repeat("]", deepLevels)
	return rejecting("deep record", onFirst(func(_ sandbox.Request, entry string) string { return inValue(entry, deep) }))
}

// OversizedRecord lists a record that is larger than records may be.
func OversizedRecord() Behaviour {
	large := `"large":"` + strings.Repeat("x", oversize) + `"`
	return rejecting("oversized record", onFirst(func(_ sandbox.Request, entry string) string { return inValue(entry, large) }))
}

// DuplicateMember lists a record with one member twice: it says two things.
func DuplicateMember() Behaviour {
	return rejecting("duplicate member", onFirst(func(_ sandbox.Request, entry string) string {
		return inValue(entry, `"twice":1,"twice":2`)
	}))
}

// InvalidUTF8 lists a record with a text that is none.
func InvalidUTF8() Behaviour {
	return rejecting("invalid utf-8", onFirst(func(_ sandbox.Request, entry string) string {
		return inValue(entry, "\"text\":\"\xff\xfe\"")
	}))
}

// TruncatedJSON ends every page in the middle, with a length that says so.
func TruncatedJSON() Behaviour {
	return Behaviour{
		Name: "truncated json", Listed: failed("bad_answer"),
		fault: on(sound(func(a sandbox.Answer) sandbox.Answer { a.Body = a.Body[:len(a.Body)/2]; return a }), sandbox.MethodListRecords),
	}
}

// HTMLListing says of its pages that they are web pages: odd, and harmless.
func HTMLListing() Behaviour {
	return Behaviour{
		Name:  "html listing",
		fault: on(sound(func(a sandbox.Answer) sandbox.Answer { a.Header.Set("Content-Type", contentHTML); return a }), sandbox.MethodListRecords),
	}
}

// PlainListing says of its pages that they are text: odd, and harmless.
func PlainListing() Behaviour {
	return Behaviour{
		Name:  "plain listing",
		fault: on(sound(func(a sandbox.Answer) sandbox.Answer { a.Header.Set("Content-Type", contentText); return a }), sandbox.MethodListRecords),
	}
}

// CutListing breaks the connection in every page.
func CutListing() Behaviour {
	return Behaviour{Name: "cut listing", Listed: failed("cut_body"), fault: on(sandbox.Fault{Cut: true, CutAfter: 8}, sandbox.MethodListRecords)}
}
