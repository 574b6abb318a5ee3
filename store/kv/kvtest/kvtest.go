// Package kvtest proves of tables that no row of theirs is taken for another one.
package kvtest

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"reflect"
	"testing"

	"appview/store/kv"
)

// Row is a row of a table, without its type.
type Row struct {
	Table string

	key    []byte
	sealed []byte
	plain  []byte // as the formats had it that knew no checksums
	read   func(key, row []byte) (same bool, err error)
}

// Sample is the row that holds v under key.
func Sample[V any](tb testing.TB, t kv.Table[V], key []byte, v V) Row {
	tb.Helper()
	sealed, err := t.Encode(key, v)
	if err != nil {
		tb.Fatal(err)
	}
	plain := bytes.Clone(sealed[:len(sealed)-kv.SealLen])
	plain[0] = t.Version
	return Row{t.Name, key, sealed, plain, func(key, row []byte) (bool, error) {
		got, err := t.Decode(key, row)
		return reflect.DeepEqual(got, v), err
	}}
}

// Flips gives data with each of its bits changed in turn, and says which.
func Flips(data []byte) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		for i := range 8 * len(data) {
			changed := bytes.Clone(data)
			changed[i/8] ^= 1 << (i % 8)
			if !yield(fmt.Sprintf("bit %d of byte %d", i%8, i/8), changed) {
				return
			}
		}
	}
}

// WantChangesNoticed changes every bit of a row and of the key that it stands under, and
// cuts the row: it must never be read as another row, or as one of before there were
// checksums. What follows the JSON in a sealed row is no part of such a row.
func WantChangesNoticed(tb testing.TB, r Row) {
	tb.Helper()
	if same, err := r.read(r.key, r.sealed); !same || err != nil {
		tb.Fatalf("%s: read back: the same %t, %v", r.Table, same, err)
	}
	refused := func(what string, key, row []byte) {
		tb.Helper()
		if same, err := r.read(key, row); !errors.Is(err, kv.ErrRow) {
			tb.Errorf("%s: %s: %v, the same %t", r.Table, what, err, same)
		}
	}
	for bit, changed := range Flips(r.sealed) {
		refused(bit+" of the row has changed", r.key, changed)
	}
	for bit, other := range Flips(r.key) {
		refused(bit+" of the key has changed", other, r.sealed)
	}
	for n := range r.sealed {
		refused(fmt.Sprintf("cut to %d bytes", n), r.key, r.sealed[:n])
	}
	asPlain := bytes.Clone(r.sealed)
	asPlain[0] = r.plain[0]
	refused("the checksum is taken for JSON", r.key, asPlain)
}

// WantPlainRead reads a row as it was before there were checksums.
func WantPlainRead(tb testing.TB, r Row) {
	tb.Helper()
	if same, err := r.read(r.key, r.plain); !same || err != nil {
		tb.Errorf("%s: the same %t, %v", r.Table, same, err)
	}
}

// Decoder is a table without its type.
type Decoder struct {
	Table string

	version byte
	decode  func(key, row []byte) (again []byte, err error)
}

// DecoderOf is the decoder of a table.
func DecoderOf[V any](t kv.Table[V]) Decoder {
	return Decoder{t.Name, t.Version, func(key, row []byte) ([]byte, error) {
		v, err := t.Decode(key, row)
		if err != nil {
			return nil, err
		}
		return t.Encode(key, v)
	}}
}

// WantSameAgain reads anything as a row, and with a checksum put to it that is right: no
// panic, a refusal that says that the file is damaged, and what is taken is written and
// read the same again, sealed.
func (d Decoder) WantSameAgain(tb testing.TB, row []byte) {
	tb.Helper()
	key := []byte("key")
	first, err := d.decode(key, row)
	if len(row) > 0 && row[0] == d.version {
		sealed := bytes.Clone(row)
		sealed[0] |= kv.SealedRow
		again, errSealed := d.decode(key, kv.Seal(key, sealed))
		if (err == nil) != (errSealed == nil) || !bytes.Equal(first, again) {
			tb.Fatalf("%s: %q is written as %q, %v, and with a checksum as %q, %v", d.Table, row, first, err, again, errSealed)
		}
	}
	if errors.Is(err, kv.ErrRow) {
		return
	}
	if err != nil { // it was read, and cannot be written
		tb.Fatalf("%s: %q: %v", d.Table, row, err)
	}
	if first[0] != d.version|kv.SealedRow {
		tb.Fatalf("%s: %q is written as %q, without a checksum", d.Table, row, first)
	}
	// A row without what it must have is not written by anybody, and not read again.
	if second, err := d.decode(key, first); err == nil && !bytes.Equal(first, second) {
		tb.Fatalf("%s: %q is written as %q, and that as %q, %v", d.Table, row, first, second, err)
	}
}
