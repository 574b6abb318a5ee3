package record_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"appview/internal/record"
)

// f64 is a float in DAG-CBOR.
func f64(f float64) string {
	return string(binary.BigEndian.AppendUint64([]byte{0xfb}, math.Float64bits(f)))
}

// TestPrintedNumbersAreProvedByTheCID has values as hosts print them, and the blocks that
// they were printed from.
func TestPrintedNumbersAreProvedByTheCID(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, value, block string }{
		{"fraction", `{"a":51.507351}`, "\xa1\x61a" + f64(51.507351)},
		{"fraction with a zero", `{"a":1.50}`, "\xa1\x61a" + f64(1.5)},
		{"exponent", `{"a":1E5}`, "\xa1\x61a" + f64(1e5)},
		{"exponent of an integer", `{"a":1e3}`, "\xa1\x61a\x19\x03\xe8"},
		{"integer with a point", `{"a":10.0}`, "\xa1\x61a\x0a"},
		{"float as an integer", `{"a":1}`, "\xa1\x61a" + f64(1)},
		{"negative float as an integer", `{"a":-17}`, "\xa1\x61a" + f64(-17)},
		{"zero as an integer", `{"a":0}`, "\xa1\x61a" + f64(0)},
		{"negative zero as an integer", `{"a":0}`, "\xa1\x61a" + f64(math.Copysign(0, -1))},
		{"negative zero with its sign", `{"a":-0}`, "\xa1\x61a" + f64(math.Copysign(0, -1))},
		{"negative zero as a float", `{"a":-0.0}`, "\xa1\x61a" + f64(math.Copysign(0, -1))},
		{"zero with a sign it has not", `{"a":-0.0}`, "\xa1\x61a\x00"},
		{"float past 2^63", `{"a":10000000000000000000}`, "\xa1\x61a" + f64(1e19)},
		{"2^63 as a float", `{"a":9223372036854775808}`, "\xa1\x61a" + f64(1<<63)},
		{"float below -2^63", `{"a":-100000000000000000000}`, "\xa1\x61a" + f64(-1e20)},
		{"2^53 as a float", `{"a":9007199254740992}`, "\xa1\x61a" + f64(1<<53)},
		{"largest float", `{"a":1.7976931348623157e308}`, "\xa1\x61a" + f64(math.MaxFloat64)},
		{"smallest float", `{"a":5e-324}`, "\xa1\x61a" + f64(5e-324)},
		{"least integer", `{"a":-9223372036854775808}`, "\xa1\x61a\x3b\x7f\xff\xff\xff\xff\xff\xff\xff"},
		{"one of two", `{"b":1,"a":[1,2]}`, "\xa2\x61a\x82\x01" + f64(2) + "\x61b\x01"},
		{"deep, in keys out of order", `{"bb":{"y":0,"x":[{"z":3}]},"c":4}`, "\xa2\x61c" + f64(4) + "\x62bb\xa2\x61x\x81\xa1\x61z\x03\x61y" + f64(0)},
		{"beside a fraction", `{"a":[51.5,51,-7.25,8]}`, "\xa1\x61a\x84" + f64(51.5) + f64(51) + f64(-7.25) + f64(8)},
		{"beside bytes that look like numbers", `{"a":{"$bytes":"AQID+wAA"},"b":1}`, "\xa2\x61a\x46\x01\x02\x03\xfb\x00\x00\x61b" + f64(1)},
		{"ten numbers, two of them floats", `{"a":[1,2,3,4,5,6,7,8,9,10]}`, "\xa1\x61a\x8a\x01\x02" + f64(3) + "\x04\x05\x06\x07" + f64(8) + "\x09\x0a"},
		{"six zeros of each kind", `{"a":[0,0,0,0,0,0]}`, "\xa1\x61a\x86\x00" + f64(math.Copysign(0, -1)) + f64(0) + "\x00" + f64(math.Copysign(0, -1)) + "\x00"},
		{"ten numbers, the last a float", `{"a":[1,2,3,4,5,6,7,8,9,10]}`, "\xa1\x61a\x8a\x01\x02\x03\x04\x05\x06\x07\x08\x09" + f64(10)},
		{"twelve numbers, all floats", `{"a":[1,2,3,4,5,6,7,8,9,10,11,12]}`, "\xa1\x61a\x8c" + floats(12)},
		{"twelve of one name, two of another", many(12), "\xa2\x63lat\x8c" + floats(12) + "\x63num\x82\x01\x02"},
		{"half a surrogate pair for a character that is none", `{"a":"x\ud800"}`, "\xa1\x61a\x64x\xef\xbf\xbd"},
		{"the same in a key", `{"\udfff":1}`, "\xa1\x63\xef\xbf\xbd\x01"},
	} {
		claimed := sum(t, []byte(c.block))
		body, err := record.FromJSON([]byte(c.value), claimed.String())
		if err != nil || !body.Verified || string(body.Data) != c.block {
			t.Errorf("%s: %s: verified %t as %x, %v", c.name, c.value, body.Verified, body.Data, err)
			continue
		}
		// As by its block, and as by our own JSON.
		whole, err := record.FromCBOR([]byte(c.block), claimed)
		if err != nil || !whole.Verified || whole.Plain != body.Plain && body.Plain || !bytes.Equal(whole.Data, body.Data) {
			t.Errorf("%s: block: verified %t as %x, %v", c.name, whole.Verified, whole.Data, err)
		}
		printed, err := body.JSON()
		if err != nil {
			t.Errorf("%s: print: %v", c.name, err)
		}
		if again, err := record.FromJSON(printed, claimed.String()); err != nil || !again.Verified {
			t.Errorf("%s: printed as %s: %v", c.name, printed, err)
		}
	}
}

func floats(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(f64(float64(i + 1)))
	}
	return b.String()
}

// many has n whole numbers of one name, and two of another.
func many(n int) string {
	list := strings.Trim(strings.ReplaceAll(fmt.Sprint(numbersTo(n)), " ", ","), "[]")
	return `{"num":[1,2],"lat":[` + list + `]}`
}

func numbersTo(n int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = i + 1
	}
	return list
}

// TestValueIsRejectedOnlyIfNothingIsInDoubt has values of which no reading has the CID.
func TestValueIsRejectedOnlyIfNothingIsInDoubt(t *testing.T) {
	t.Parallel()
	claimed := sum(t, []byte("what the host hashed")).String()
	eleven := `{"a1":1,"b1":2,"c1":3,"d1":4,"e1":5,"f1":6,"g1":7,"h1":8,"i1":9,"j1":10,"k1":11}`
	for _, c := range []struct {
		value          string
		unproved, kept bool
		err            error
	}{
		{`{"a":"text"}`, false, false, record.ErrMismatch},
		{`{"a":[true,null,{}]}`, false, false, record.ErrMismatch},
		{`{"a":{"$link":"` + rawLink + `"}}`, false, false, record.ErrMismatch},
		{`{"a":1}`, true, false, record.ErrMismatch},
		{`{"a":[0,0,0]}`, true, false, record.ErrMismatch},
		{`{"a":1,"b":"text"}`, true, false, record.ErrMismatch},
		{eleven, true, true, record.ErrMismatch},
		{`{"a":[0,0,0,0,0,0,0]}`, true, true, record.ErrMismatch}, // 3^7 ways
		{`{"a":9223372036854775808}`, true, false, record.ErrMismatch},
		{`{"a":-9223372036854775809}`, true, false, record.ErrMismatch},
		{`{"a":18446744073709551616,"b":1.5}`, true, false, record.ErrMismatch},
		{`{"a":123456789012345678901234567890}`, true, false, record.ErrMismatch},
		{`{"a":1` + strings.Repeat("0", 400) + `}`, true, false, record.ErrMismatch},
		{`{"a":1e999}`, true, false, record.ErrMismatch},
		{`{"z":10000000000000000000,` + eleven[1:], true, true, record.ErrMismatch},
		{`{"a":"\ud800"}`, false, false, record.ErrInvalid},
		{`{"a":"\udc00\ud800"}`, false, false, record.ErrInvalid},
		{`{"a":"\ud800\u0061"}`, false, false, record.ErrInvalid},
		{`{"\ud800":"a"}`, false, false, record.ErrInvalid},
		{`{"a":{"b":["\ud83d"]},"f":1.5}`, false, false, record.ErrInvalid},
		{`{"a":"\ud800","n":1}`, true, false, record.ErrMismatch},
		{`{"a":"\ud800",` + eleven[1:], true, false, record.ErrMismatch},
		{`{"a":"` + "\xed\xa0\x80" + `"}`, false, false, record.ErrInvalid},
		{`{"` + "\xff" + `":1}`, false, false, record.ErrInvalid},
		{`{"a":1.5}`, false, true, nil},
		{`{"a":1.5,"b":1}`, false, true, nil},
		{`{"a":1.5,` + eleven[1:], false, true, nil},
	} {
		body, err := record.FromJSON([]byte(" "+c.value+"\n"), claimed)
		if errors.Is(err, record.ErrUnproved) != c.unproved || !errors.Is(err, c.err) || (err == nil) != (c.err == nil) {
			t.Errorf("%.80s: %v", c.value, err)
		}
		if body.Verified || (body.Data != nil) != c.kept || c.kept && string(body.Data) != c.value {
			t.Errorf("%.80s: kept %.80q, verified %t", c.value, body.Data, body.Verified)
		}
		if c.unproved && body.CID.String() != claimed {
			t.Errorf("%.80s: the body is of %s", c.value, body.CID)
		}
	}
}

// TestWaysCostNoMoreThanTheirBound has values with more ways, or larger ones, than there
// is time for.
func TestWaysCostNoMoreThanTheirBound(t *testing.T) {
	t.Parallel()
	claimed := sum(t, []byte("what the host hashed")).String()
	large := `{"a":[1,2,3,4,5,6,7,8,9,10],"text":"` + strings.Repeat("x", 1<<20-100) + `"}`
	crowd := `{"a":[` + strings.Repeat("1,", 120_000) + `1]}`
	small := `{"a":[1,2,3,4,5,6,7,8,9,10],"text":"` + strings.Repeat("x", 900) + `"}`
	var b strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&b, `"x%d":%d,`, i, i)
	}
	names := `{` + b.String() + `"y":1}`
	var v record.Verifier
	for _, value := range []string{large, crowd, names} {
		for range 5 {
			body, err := v.FromJSON([]byte(value), claimed)
			if !errors.Is(err, record.ErrUnproved) || body.Data == nil {
				t.Fatalf("%.30s: kept %d bytes, %v", value, len(body.Data), err)
			}
		}
	}
	if n := v.Vain(); n > 32<<20 {
		t.Errorf("%d bytes were hashed in vain", n)
	}
	// All ways of a small value are tried as long as there is room for it.
	v, rejected := record.Verifier{}, 0
	for range 50 {
		body, err := v.FromJSON([]byte(small), claimed)
		if !errors.Is(err, record.ErrUnproved) {
			t.Fatal(err)
		}
		if body.Data == nil {
			rejected++
		}
	}
	if rejected < 5 || rejected > 10 || v.Vain() > 9<<20 {
		t.Errorf("all ways of %d values were tried, with %d bytes", rejected, v.Vain())
	}
	// What a hash proves is not counted.
	block := "\xa1\x61a\x8a\x01\x02\x03\x04\x05\x06\x07\x08\x09" + f64(10)
	v = record.Verifier{}
	for range 50 {
		if body, err := v.FromJSON([]byte(`{"a":[1,2,3,4,5,6,7,8,9,10]}`), sum(t, []byte(block)).String()); err != nil || !body.Verified || v.Vain() != 0 {
			t.Fatalf("verified %t, %v, %d bytes in vain", body.Verified, err, v.Vain())
		}
	}
}

func BenchmarkFromJSONInVain(b *testing.B) {
	claimed := sum(b, []byte("what the host hashed")).String()
	for _, c := range []struct {
		name string
		text int
	}{{"450B", 400}, {"16KiB", 16 << 10}, {"1MiB", 1<<20 - 100}} {
		value := []byte(`{"a":[1,2,3,4,5,6,7,8,9,10],"text":"` + strings.Repeat("x", c.text) + `"}`)
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(len(value)))
			for b.Loop() {
				if _, err := record.FromJSON(value, claimed); err == nil {
					b.Fatal("proved")
				}
			}
		})
	}
}
