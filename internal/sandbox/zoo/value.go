package zoo

import (
	"bytes"
	"encoding/json"
	"math"
	"strconv"
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/sandbox"
	"appview/internal/sandbox/encode"
)

func valueZoo() []Behaviour {
	return []Behaviour{
		RoundedFractions(1), RoundedFractions(0), LongIntegers(), WrongCIDInDoubt(), HalfSurrogate(), HalfSurrogateKey(), LyingProofs(),
		OutsideTheModel(),
	}
}

// onNumbers changes how the numbers of every listed record are printed.
func onNumbers(change func(string) string) func(*sandbox.World, sandbox.Request) sandbox.Fault {
	return onPages(func(_ *sandbox.World, _ sandbox.Request, l *listedPage) {
		for i, entry := range l.Records {
			d := json.NewDecoder(bytes.NewReader(entry))
			d.UseNumber()
			var value any
			if d.Decode(&value) != nil {
				continue
			}
			if b, err := json.Marshal(withNumbers(value, change)); err == nil {
				l.Records[i] = b
			}
		}
	})
}

func withNumbers(value any, change func(string) string) any {
	switch v := value.(type) {
	case json.Number:
		return json.Number(change(v.String()))
	case []any:
		for i := range v {
			v[i] = withNumbers(v[i], change)
		}
	case map[string]any:
		for name := range v {
			v[name] = withNumbers(v[name], change)
		}
	}
	return value
}

// RoundedFractions lists numbers with so many digits behind the point, and without a
// point if that are none. The CIDs are right.
func RoundedFractions(digits int) Behaviour {
	return Behaviour{Name: "fractions rounded to " + strconv.Itoa(digits), fault: onNumbers(func(n string) string {
		f, err := strconv.ParseFloat(n, 64)
		if err != nil || f == math.Trunc(f) {
			return n
		}
		return strconv.FormatFloat(f, 'f', digits, 64)
	})}
}

// LongIntegers lists a record with an integer that is in no data model. A proof of the
// record shows what it holds.
func LongIntegers() Behaviour {
	return Behaviour{Name: "long integers", fault: onFirst(func(_ sandbox.Request, entry string) string {
		return inValue(entry, `"long":18446744073709551616`)
	})}
}

// WrongCIDInDoubt lists a record with the CID of another one, and with a number, so that
// it may have been printed otherwise. A proof of the record shows what it holds.
func WrongCIDInDoubt() Behaviour {
	return Behaviour{Name: "wrong cid in doubt", fault: onFirst(func(_ sandbox.Request, entry string) string {
		return wrongCID(inValue(entry, `"number":1`))
	})}
}

// wrongCID gives an entry the CID of another record.
func wrongCID(entry string) string {
	c, err := encode.CID([]byte("another record"))
	before, after, ok := strings.Cut(entry, `"cid":"`)
	if _, rest, more := strings.Cut(after, `"`); err == nil && ok && more {
		return before + `"cid":"` + c.String() + `"` + rest
	}
	return entry
}

// HalfSurrogate lists a record with a text that no record can hold.
func HalfSurrogate() Behaviour {
	return rejecting("half a surrogate pair", onFirst(func(r sandbox.Request, entry string) string { return instead(r, entry, `"text":"\ud800"`) }))
}

// HalfSurrogateKey lists a record with such a text as the name of a member.
func HalfSurrogateKey() Behaviour {
	return rejecting("half a surrogate pair in a key", onFirst(func(r sandbox.Request, entry string) string { return instead(r, entry, `"\udc00":true`) }))
}

// instead gives an entry a value of its type and one member, with nothing in it that may
// have been printed otherwise.
func instead(r sandbox.Request, entry, member string) string {
	before, _, ok := strings.Cut(entry, `"value":{`)
	if !ok {
		return entry
	}
	return before + `"value":{"$type":"` + r.Collection.String() + `",` + member + `}}`
}

// LyingProofs lists a record with a wrong CID, in doubt, and proves each record by the
// proof of one that another account has. A reader rejects what it cannot prove.
func LyingProofs() Behaviour {
	wrong := WrongCIDInDoubt()
	return rejecting("lying proofs", func(w *sandbox.World, r sandbox.Request) sandbox.Fault {
		if r.Method != sandbox.MethodGetProof {
			return wrong.fault(w, r)
		}
		return sound(func(a sandbox.Answer) sandbox.Answer {
			a.Body = nil
			for _, other := range w.Repos() {
				if other.DID != syntax.DID(r.DID) && other.Status == sandbox.StatusActive {
					if b, err := w.Proof(other.DID, r.Collection, syntax.RecordKey(r.RKey)); err == nil {
						a.Body = b
						break
					}
				}
			}
			return a
		})
	})
}

// OutsideTheModel has records whose blocks, properly hashed, are in no data model.
func OutsideTheModel() Behaviour {
	return withValues("outside the model",
		"\xa1\x61n\x1b\x80\x00\x00\x00\x00\x00\x00\x00", `{"n":9223372036854775808}`,
		"\xa1\x61n\x3b\x80\x00\x00\x00\x00\x00\x00\x00", `{"n":-9223372036854775809}`,
		"\xa1\x61n\x3b\xff\xff\xff\xff\xff\xff\xff\xff", `{"n":-18446744073709551616}`,
		"\xa1\x61t\x63\xed\xa0\xbd", `{"t":"\ud83d"}`,
		"\xa1\x63\xed\xb0\x80\xf5", `{"\udc00":true}`,
		"\xa1\x61n\xfb\x7f\xf8\x00\x00\x00\x00\x00\x00", `{"n":null}`,
		"\xa1\x61n\xfb\xff\xf0\x00\x00\x00\x00\x00\x00", `{"n":null}`,
		"\xa1\x61n\xf9\x7c\x00", `{"n":1e999}`,
	)
}

// SpeltOtherwise has records whose blocks, properly hashed, are not canonical and say one
// thing: floats that are shorter than they should be. Nobody can tell their JSON from
// that of other blocks, so they are kept, unverified.
func SpeltOtherwise() Behaviour {
	b := withValues("spelt otherwise",
		"\xa1\x61n\xf9\x3e\x00", `{"n":1.5}`,
		"\xa1\x61n\xfa\x3f\x80\x00\x00", `{"n":1}`,
		"\xa1\x61n\xfa\x47\xc3\x50\x00", `{"n":1E5}`,
	)
	b.Listed, b.Whole = outcomeExact, outcomeExact
	return b
}

// withValues has records of blocks and what listings print of them, in turn.
func withValues(name string, values ...string) Behaviour {
	var strays []stray
	for i := 0; i < len(values); i += 2 {
		path := sandbox.NoteCollection.String() + "/22222222222" + strconv.Itoa(20+i)
		strays = append(strays, stray{path: path, block: []byte(values[i]), value: values[i+1]})
	}
	return withStrays(name, strays...)
}
