package record_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"

	"appview/internal/record"
)

const (
	rawLink = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"
	oldBlob = "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWKPbdG"
)

// sum is the CID of data as a record's block.
func sum(tb testing.TB, data []byte) cid.Cid {
	tb.Helper()
	c, err := cid.NewPrefixV1(cid.DagCBOR, multihash.SHA2_256).Sum(data)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// reference is the block that the network's own library makes of a value.
func reference(tb testing.TB, value string) []byte {
	tb.Helper()
	obj, err := atdata.UnmarshalJSON([]byte(value))
	if err != nil {
		tb.Fatalf("reference does not read %s: %v", value, err)
	}
	block, err := atdata.MarshalCBOR(obj)
	if err != nil {
		tb.Fatalf("reference does not write %s: %v", value, err)
	}
	return block
}

func plainValues() []string {
	many := make([]string, 300)
	for i := range many {
		many[i] = `"k` + strings.Repeat("x", i%40) + string(rune('a'+i%26)) + strings.Repeat("y", i/26) + `":` + strings.Repeat("1", 1+i%15)
	}
	return []string{
		`{}`,
		`{"$type":"xyz.statusphere.status","status":"👍","createdAt":"2026-01-02T03:04:05.678Z"}`,
		`{"b":1,"a":2,"aa":3,"c":[],"bb":{},"":0}`,
		`{"n":[0,23,24,255,256,65535,65536,4294967295,4294967296,9007199254740991,-1,-24,-25,-256,-257,-9007199254740991]}`,
		`{"t":true,"f":false,"z":null}`,
		`{"link":{"$link":"` + rawLink + `"},"old":{"$link":"` + oldBlob + `"}}`,
		`{"bytes":{"$bytes":"AQIDBA"},"none":{"$bytes":""}}`,
		`{"blob":{"$type":"blob","ref":{"$link":"` + rawLink + `"},"mimeType":"image/png","size":12345}}`,
		`{"html":"<a href=\"x\">&amp;</a>","esc":"\b\f\n\r\t\u0001\u007f\/\\","pair":"\ud83d\ude00","line":"\u2028"}`,
		`{"é":"ü","日本":["語"],"\u0061b":1}`,
		`{"long":"` + strings.Repeat("é", 70_000) + `","list":[` + strings.Repeat("1,", 69_999) + `1]}`,
		" \n{ \"a\" :\t[ 1 , 2 ] , \"b\" : { } }\r\n",
		"{" + strings.Join(many, ",") + "}",
		`{"deep":` + strings.Repeat("[", 127) + strings.Repeat("]", 127) + `}`,
		`{"cid":"x","mimeType":"y","more":1}`,
	}
}

func TestPlainValuesAreVerifiedAsTheReferenceHashesThem(t *testing.T) {
	t.Parallel()
	for _, value := range plainValues() {
		block := reference(t, value)
		want := sum(t, block)
		body, err := record.FromJSON([]byte(value), want.String())
		if err != nil {
			t.Errorf("%.80s: %v", value, err)
			continue
		}
		if !body.Verified || body.CID != want || !bytes.Equal(body.Data, block) {
			t.Errorf("%.80s: verified %v as %x, want %x", value, body.Verified, body.Data, block)
			continue
		}
		printed, err := body.JSON()
		if err != nil {
			t.Errorf("%.80s: print: %v", value, err)
			continue
		}
		again, err := record.FromJSON(printed, want.String())
		if err != nil || !again.Verified {
			t.Errorf("%.80s: printed as %.200s: verified %v, %v", value, printed, again.Verified, err)
		}
		fromBlock, err := record.FromCBOR(block, want)
		if err != nil || !fromBlock.Verified || !bytes.Equal(fromBlock.Data, block) {
			t.Errorf("%.80s: block: verified %v, %v", value, fromBlock.Verified, err)
		}
	}
}

func TestAnotherCIDIsAMismatch(t *testing.T) {
	t.Parallel()
	other := sum(t, []byte("other"))
	for _, value := range plainValues() {
		if _, err := record.FromJSON([]byte(value), other.String()); !errors.Is(err, record.ErrMismatch) {
			t.Errorf("%.80s: got %v, want a mismatch", value, err)
		}
		if _, err := record.FromCBOR(reference(t, value), other); !errors.Is(err, record.ErrMismatch) {
			t.Errorf("block of %.80s: got %v, want a mismatch", value, err)
		}
	}
}

func TestWhatCannotBeRecomputedIsKeptAsReceived(t *testing.T) {
	t.Parallel()
	claimed := sum(t, []byte("what the host hashed")).String()
	for _, value := range []string{
		`{"a":1.5}`,
		`{"a":1.0}`,
		`{"a":1e3}`,
		`{"a":-0}`,
		`{"a":9007199254740992}`,
		`{"a":-9007199254740993}`,
		`{"a":{"$bytes":"AQ=="}}`,
		`{"a":{"$bytes":"AR"}}`,
		`{"a":{"$bytes":"A\nQ"}}`,
		`{"a":{"$bytes":"!"}}`,
		`{"a":{"$bytes":1}}`,
		`{"a":{"$bytes":"AQ","more":1}}`,
		`{"a":{"$link":"nonsense"}}`,
		`{"a":{"$link":"` + strings.ToUpper(rawLink) + `"}}`,
		`{"a":{"$link":"` + rawLink + `","more":1}}`,
		`{"a":{"$link":null}}`,
		`{"$link":"` + rawLink + `"}`,
		`{"a":{"cid":"` + oldBlob + `","mimeType":"image/png"}}`,
		`{"a":{"$type":"blob","ref":{"$link":"` + rawLink + `"},"mimeType":"image/png","size":1,"extra":2}}`,
		`{"a":{"$type":"blob","ref":{"$link":"` + rawLink + `"},"mimeType":"image/png","size":-1}}`,
		`{"a":{"$type":"blob","ref":"` + rawLink + `","mimeType":"image/png","size":1}}`,
		`{"a":{"$type":"blob"}}`,
		`{"$type":""}`,
		`{"$type":7}`,
	} {
		body, err := record.FromJSON([]byte(" "+value+"\n"), claimed)
		if err != nil || body.Verified || string(body.Data) != value || body.CID.String() != claimed {
			t.Errorf("%s: got verified %v, %s, %v", value, body.Verified, body.Data, err)
			continue
		}
		if printed, err := body.JSON(); err != nil || string(printed) != value {
			t.Errorf("%s: printed as %s, %v", value, printed, err)
		}
	}
}

func TestAnEqualHashProvesEvenAnOddValue(t *testing.T) {
	t.Parallel()
	// {"a": {"cid": "x", "mimeType": "y"}}, as a map of texts.
	block := []byte("\xa1\x61a\xa2\x63cid\x61x\x68mimeType\x61y")
	body, err := record.FromJSON([]byte(`{"a":{"cid":"x","mimeType":"y"}}`), sum(t, block).String())
	if err != nil || !body.Verified || !bytes.Equal(body.Data, block) {
		t.Fatalf("got verified %v, %q, %v", body.Verified, body.Data, err)
	}
}

func TestOtherKindsOfCIDAreKeptUnverified(t *testing.T) {
	t.Parallel()
	raw, err := cid.NewPrefixV1(cid.Raw, multihash.SHA2_256).Sum([]byte("\xa0"))
	if err != nil {
		t.Fatal(err)
	}
	for _, claimed := range []string{raw.String(), oldBlob} {
		body, err := record.FromJSON([]byte(`{}`), claimed)
		if err != nil || body.Verified || string(body.Data) != `{}` {
			t.Errorf("%s: got verified %v, %s, %v", claimed, body.Verified, body.Data, err)
		}
	}
	if body, err := record.FromCBOR([]byte("\xa0"), raw); err != nil || body.Verified || string(body.Data) != `{}` {
		t.Errorf("block: got verified %v, %s, %v", body.Verified, body.Data, err)
	}
}

func TestWhatIsNoRecordIsInvalid(t *testing.T) {
	t.Parallel()
	claimed := sum(t, []byte("\xa0")).String()
	for _, value := range []string{
		``, ` `, `null`, `[]`, `"a"`, `1`, `{`, `{}}`, `{} {}`, `{}x`, `{"a"}`, `{"a":}`, `{"a":1,}`, `{,}`, `{a:1}`, `{'a':1}`,
		`{"a":01}`, `{"a":+1}`, `{"a":.5}`, `{"a":1.}`, `{"a":1e}`, `{"a":-}`, `{"a":NaN}`, `{"a":tru}`, `{"a":[1,]}`, `{"a":[1 2]}`,
		`{"a":"\x"}`, `{"a":"\u12"}`, `{"a":"\u12g4"}`, `{"a":"`, `{"a":"\`, "{\"a\":\"\n\"}", "{\"a\":\"\\n\n\"}", "{\"a\":\"\xff\"}", "{}\x00",
		`{"a":` + strings.Repeat("[", 128) + strings.Repeat("]", 128) + `}`,
		`{"a":` + strings.Repeat(`{"a":`, 400_000),
		`{"a":` + strings.Repeat("[", 1<<20),
	} {
		if _, err := record.FromJSON([]byte(value), claimed); !errors.Is(err, record.ErrInvalid) {
			t.Errorf("%.60q: got %v, want invalid", value, err)
		}
	}
	for _, c := range []string{"", "x", "bafy", strings.Repeat("z", 1<<20), claimed + "x"} {
		if _, err := record.FromJSON([]byte(`{}`), c); !errors.Is(err, record.ErrInvalid) {
			t.Errorf("cid %.60q: got %v, want invalid", c, err)
		}
	}
}

func TestBlocksThatAreNoRecordAreInvalid(t *testing.T) {
	t.Parallel()
	for _, block := range []string{
		"", "\x80", "\x01", "\xa1", "\xa1\x61", "\xa1\x61a", "\xa1\x01\x01", "\xa0\xa0", "\xbf\xff", "\xa1\x61a\x9f\xff", "\xa1\x61a\x5f\xff",
		"\xa1\x61a\x1b\xff\xff\xff\xff\xff\xff\xff\xff", "\xa1\x61a\x3b\xff\xff\xff\xff\xff\xff\xff\xff", "\xa1\x61a\xf7", "\xa1\x61a\xf8\x14",
		"\xa1\x61a\xf9\x7c\x00", "\xa1\x61a\xf9\x7e\x01", "\xa1\x61a\xf9\xfc\x00", "\xa1\x61a\xfa\x7f\x80\x00\x00", "\xa1\x61a\xfa\x7f\xc0\x00\x00",
		"\xa1\x61a\xfb\x7f\xf8\x00\x00\x00\x00\x00\x00", "\xa1\x61a\xfb\xff\xf0\x00\x00\x00\x00\x00\x00", "\xa1\x63\xed\xa0\x80\x01", "\xa1\x61a\x63\xed\xb0\x80", "\xa1\x61\xff\x01",
		"\xa1\x61a\xfb\x7f\xf0\x00\x00\x00\x00\x00\x00", "\xa1\x61a\x61\xff", "\xa1\x61a\xc1\x00", "\xa1\x61a\xd8\x2a\x41\x01", "\xa1\x61a\xd8\x2a\x42\x00\x01",
		"\xa1\x61a\x9b\xff\xff\xff\xff\xff\xff\xff\xff", "\xa1\x61a\x7b\xff\xff\xff\xff\xff\xff\xff\xff",
		"\xa1\x61a" + strings.Repeat("\x81", 200) + "\x00", "\xa1\x61a" + strings.Repeat("\x81", 1<<20-3),
	} {
		if _, err := record.FromCBOR([]byte(block), sum(t, []byte(block))); !errors.Is(err, record.ErrInvalid) {
			t.Errorf("%.60q: got %v, want invalid", block, err)
		}
	}
	if _, err := record.FromCBOR([]byte("\xa0"), cid.Undef); !errors.Is(err, record.ErrInvalid) {
		t.Errorf("no cid: got %v, want invalid", err)
	}
}

func TestAuthenticBlocksThatJSONCannotSayAreKeptUnverified(t *testing.T) {
	t.Parallel()
	for block, want := range map[string]string{
		"\xa1\x61a\xf9\x3e\x00":                         `{"a":1.5}`,
		"\xa1\x61a\xf9\x80\x00":                         `{"a":-0.0}`,
		"\xa1\x61a\xf9\x00\x01":                         `{"a":5.960464477539063e-08}`,
		"\xa1\x61a\xfa\x47\xc3\x50\x00":                 `{"a":100000.0}`,
		"\xa1\x61a\x18\x01":                             `{"a":1}`, // not the shortest form
		"\xa2\x62bb\x01\x61a\x02":                       `{"bb":1,"a":2}`,
		"\xa1\x61a\xa1\x65$link\x61x":                   `{"a":{"$link":"x"}}`,
		"\xa1\x61a\xa1\x66$bytes\x62AQ":                 `{"a":{"$bytes":"AQ"}}`,
		"\xa1\x61a\x1b\x00\x00\x00\x00\x00\x00\x00\x01": `{"a":1}`,
	} {
		body, err := record.FromCBOR([]byte(block), sum(t, []byte(block)))
		if err != nil || body.Verified || string(body.Data) != want {
			t.Errorf("%q: got verified %v, %s, %v", block, body.Verified, body.Data, err)
		}
	}
}

func TestTooLarge(t *testing.T) {
	t.Parallel()
	claimed := sum(t, []byte("x"))
	for name, value := range map[string]string{
		"json": `{"a":"` + strings.Repeat("x", record.MaxJSON) + `"}`,
		"cbor": `{"a":"` + strings.Repeat("x", record.MaxCBOR) + `"}`,
	} {
		if _, err := record.FromJSON([]byte(value), claimed.String()); !errors.Is(err, record.ErrTooLarge) {
			t.Errorf("%s: got %v, want too large", name, err)
		}
	}
	if _, err := record.FromCBOR(make([]byte, record.MaxCBOR+1), claimed); !errors.Is(err, record.ErrTooLarge) {
		t.Errorf("block: got %v, want too large", err)
	}
	controls := append([]byte("\xa1\x61a\x7a\x00\x0f\x00\x00"), bytes.Repeat([]byte{1}, 0xf0000)...)
	if _, err := record.FromCBOR(controls, sum(t, controls)); !errors.Is(err, record.ErrTooLarge) {
		t.Errorf("block whose json is past the limit: got %v, want too large", err)
	}
}

func TestBodySharesNoMemoryWithItsSource(t *testing.T) {
	t.Parallel()
	value := []byte(`{"a":1.5}`)
	body, err := record.FromJSON(value, sum(t, []byte("x")).String())
	if err != nil {
		t.Fatal(err)
	}
	clear(value)
	if string(body.Data) != `{"a":1.5}` {
		t.Fatalf("body changed with its source: %q", body.Data)
	}
}

func TestJSONEscapesNoMoreThanItMust(t *testing.T) {
	t.Parallel()
	const value = `{"a":"<>&/ \u0000\n\"\\é😀` + "\u2028\x7f" + `"}`
	body, err := record.FromJSON([]byte(value), sum(t, reference(t, value)).String())
	if err != nil {
		t.Fatal(err)
	}
	if printed, err := body.JSON(); err != nil || string(printed) != value {
		t.Fatalf("printed as %s, %v", printed, err)
	}
}

// benchValue is a record as most are.
func benchValue() string {
	return `{"$type":"app.example.note","text":"` + strings.Repeat("a plain sentence. ", 20) + `","createdAt":"2026-01-02T03:04:05.678Z","langs":["en"],"reply":{"root":{"cid":"` + rawLink + `","uri":"at://did:plc:z72i7hdynmk6r22z27h6tvur/app.bsky.feed.post/3lbqxgrf6ck2a"}}}`
}

func BenchmarkFromJSON(b *testing.B) {
	value := benchValue()
	claimed := sum(b, reference(b, value)).String()
	b.SetBytes(int64(len(value)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := record.FromJSON([]byte(value), claimed); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendJSON(b *testing.B) {
	value := benchValue()
	body, err := record.FromJSON([]byte(value), sum(b, reference(b, value)).String())
	if err != nil {
		b.Fatal(err)
	}
	var out []byte
	b.SetBytes(int64(len(value)))
	b.ReportAllocs()
	for b.Loop() {
		if out, err = body.AppendJSON(out[:0]); err != nil {
			b.Fatal(err)
		}
	}
}

// TestTextIsEscapedWhereverItNeedsToBe has each kind of byte at every place of
// strings of every length up to a word of eight bytes behind 32, which are looked at at
// once, and of some that are longer.
func TestTextIsEscapedWhereverItNeedsToBe(t *testing.T) {
	t.Parallel()
	for length := range 74 {
		if length > 41 && length < 63 {
			continue
		}
		for at := range length {
			for _, c := range []string{"\x00", "\t", "\x1f", " ", "!", "\"", "#", "[", "\\", "]", "\x7f", "é", "日"} {
				text := strings.Repeat("y", at) + c + strings.Repeat("z", length-at-1)
				value, err := json.Marshal(map[string]string{"t": text})
				if err != nil {
					t.Fatal(err)
				}
				body, err := record.FromJSON(value, sum(t, reference(t, string(value))).String())
				if err != nil || !body.Verified {
					t.Fatalf("%q: verified %t, %v", text, body.Verified, err)
				}
				got, err := body.AppendJSON([]byte("before "))
				if err != nil {
					t.Fatal(err)
				}
				var back map[string]string
				if err := json.Unmarshal(bytes.TrimPrefix(got, []byte("before ")), &back); err != nil || back["t"] != text {
					t.Fatalf("%q came back as %q: %v", text, got, err)
				}
			}
		}
	}
}

func TestAppendCIDWritesWhatStringReturns(t *testing.T) {
	t.Parallel()
	for _, text := range []string{rawLink, oldBlob, sum(t, []byte("x")).String(), "bafyrgqhai26anf3i7pips7q22coa4sz2fr4gk4q4sqdtymvvjyginfzaqewveaeqdh524nsktaq43j65v22xxrybrtertmcfxufdam3da3hbk"} {
		c, err := cid.Decode(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(record.Body{CID: c}.AppendCID([]byte("is "))); got != "is "+c.String() {
			t.Errorf("%s is written as %q", c, got)
		}
	}
}

func TestVerifiedBodyTellsWhetherItIsIntact(t *testing.T) {
	t.Parallel()
	block := reference(t, `{"$type":"xyz.statusphere.status","status":"👍"}`)
	body, err := record.FromCBOR(block, sum(t, block))
	if err != nil || !body.Verified || !body.Intact() {
		t.Fatalf("%+v, %v", body, err)
	}
	other := body
	other.CID = cid.NewCidV1(cid.Raw, body.CID.Hash())
	if other.Intact() {
		t.Error("a verified body of a form that nothing proves is intact")
	}
	body.Data[len(body.Data)-1] ^= 1
	if body.Intact() {
		t.Error("a changed body is intact")
	}
	body.Verified = false
	if !body.Intact() {
		t.Error("of an unverified body nobody can tell")
	}
}
