package kv_test

import (
	"testing"

	"appview/store/kv"
	"appview/store/kv/kvtest"
)

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
	for bit, changed := range kvtest.Flips(row) {
		if n, ok := kv.NumberOf(key, changed); ok {
			t.Errorf("%s of the row has changed: %d", bit, n)
		}
	}
	for bit, other := range kvtest.Flips(key) {
		if n, ok := kv.NumberOf(other, row); ok {
			t.Errorf("%s of the key has changed: %d", bit, n)
		}
	}
	if n, ok := kv.NumberOf(key, nil); ok {
		t.Errorf("nothing is %d", n)
	}
}
