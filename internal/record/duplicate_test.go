package record_test

import (
	"errors"
	"strings"
	"testing"

	"appview/internal/record"
)

// TestMemberThatIsThereTwiceMakesARecordInvalid has maps that say two things, at every
// depth and in every spelling: as blocks whose hash is right, and as JSON.
func TestMemberThatIsThereTwiceMakesARecordInvalid(t *testing.T) {
	t.Parallel()
	const one = "\xa2\x61a\x00\x61a\x01"
	for name, block := range map[string]string{
		"two values":              one,
		"one value":               "\xa2\x61a\x01\x61a\x01",
		"not side by side":        "\xa3\x61a\x00\x61b\x01\x61a\x02",
		"three times":             "\xa3\x61a\x00\x61a\x01\x61a\x02",
		"the empty key":           "\xa2\x60\x00\x60\x01",
		"in a map":                "\xa1\x61m" + one,
		"in a list":               "\xa1\x61l\x82\x00" + one,
		"deep":                    "\xa1\x61d" + strings.Repeat("\x81", 100) + one,
		"behind a sound map":      "\xa2\x61a\xa1\x61a\x00\x61b" + one,
		"key of a longer length":  "\xa2\x61a\x00\x78\x01a\x01",
		"key of eight bytes more": "\xa2\x7b\x00\x00\x00\x00\x00\x00\x00\x01a\x00\x61a\x01",
		"map of a longer length":  "\xb8\x02\x61a\x00\x61a\x01",
		"a key to be escaped":     "\xa2\x61\"\x00\x61\"\x01",
		"beside a float":          "\xa3\x61a\x00\x61a\x01\x61f\xfb\x3f\xf8\x00\x00\x00\x00\x00\x00",
		"links":                   "\xa1\x61a\xa2\x65$link\x61x\x65$link\x61y",
		"bytes":                   "\xa1\x61a\xa2\x66$bytes\x62AQ\x66$bytes\x62AQ",
		"types":                   "\xa2\x65$type\x61x\x65$type\x61y",
	} {
		body, err := record.FromCBOR([]byte(block), sum(t, []byte(block)))
		if !errors.Is(err, record.ErrInvalid) {
			t.Errorf("block, %s: kept %s, %v", name, body.Data, err)
		}
	}
	claimed := sum(t, []byte("what the host hashed")).String()
	for _, value := range []string{
		`{"a":0,"a":1}`,
		`{"a":1,"a":1}`,
		`{"a":1,"\u0061":2}`,
		`{"é":1,"b":2,"\u00e9":3}`,
		`{"":0,"":0}`,
		`{"m":{"a":0,"a":1}}`,
		`{"l":[[0,{"a":0,"a":1}]]}`,
		`{"f":1.5,"a":0,"a":1}`,
		`{"a":{"$link":"x","$link":"x"}}`,
		`{"a":{"$bytes":"AQ","$bytes":"AQ"}}`,
		`{"d":` + strings.Repeat("[", 100) + `{"a":0,"a":1}` + strings.Repeat("]", 100) + `}`,
	} {
		if body, err := record.FromJSON([]byte(value), claimed); !errors.Is(err, record.ErrInvalid) {
			t.Errorf("json %s: kept %s, %v", value, body.Data, err)
		}
	}
}

// TestWhatIsOnlySpeltOtherwiseIsKept has blocks that are not canonical and say one thing.
func TestWhatIsOnlySpeltOtherwiseIsKept(t *testing.T) {
	t.Parallel()
	for block, want := range map[string]string{
		"\xa2\x62bb\x01\x61a\x02":           `{"bb":1,"a":2}`,
		"\xa3\x61b\x01\x61c\x02\x61a\x03":   `{"b":1,"c":2,"a":3}`,
		"\xa1\x78\x01a\x01":                 `{"a":1}`,
		"\xb8\x01\x61a\x01":                 `{"a":1}`,
		"\xa1\x61l\x98\x02\x01\x19\x00\x02": `{"l":[1,2]}`,
		"\xa2\x61a\xa1\x61a\x01\x61b\x02":   `{"a":{"a":1},"b":2}`,
	} {
		body, err := record.FromCBOR([]byte(block), sum(t, []byte(block)))
		if err != nil || len(body.Data) == 0 {
			t.Errorf("%q: %v", block, err)
			continue
		}
		if printed, err := body.JSON(); err != nil || string(printed) != want {
			t.Errorf("%q: printed as %s, %v", block, printed, err)
		}
	}
}
