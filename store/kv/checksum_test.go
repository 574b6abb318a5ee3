package kv_test

import (
	"bytes"
	"fmt"
	"iter"
	"testing"

	"appview/store/kv"
)

// flips gives data with each of its bits changed in turn, and says which.
func flips(data []byte) iter.Seq2[string, []byte] {
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

// TestChangedNumberIsNoticed changes every bit of what a number is kept as, and of its
// key. One that was written before there were checksums is read, and no bit makes one of it.
func TestChangedNumberIsNoticed(t *testing.T) {
	t.Parallel()
	key := []byte("next")
	row := kv.SealedNumber(key, 0x0102)
	for _, row := range [][]byte{row, kv.NumberKey(0x0102)} {
		if n, ok := kv.NumberOf(key, row); !ok || n != 0x0102 {
			t.Errorf("%x is %d, %t", row, n, ok)
		}
	}
	for bit, changed := range flips(row) {
		if n, ok := kv.NumberOf(key, changed); ok {
			t.Errorf("%s of the row has changed: %d", bit, n)
		}
	}
	for bit, other := range flips(key) {
		if n, ok := kv.NumberOf(other, row); ok {
			t.Errorf("%s of the key has changed: %d", bit, n)
		}
	}
	if n, ok := kv.NumberOf(key, nil); ok {
		t.Errorf("nothing is %d", n)
	}
}
