package record

import (
	"bytes"
	"iter"
	"math"

	"github.com/ipfs/go-cid"
)

const (
	// maxWays is how many ways to read the numbers of one value are tried.
	maxWays = 1024
	// maxVain bounds the bytes that are hashed for values of one repo that no hash proves:
	// some hundredths of a second's work. Of a value of 8 KiB that leaves all ways, of one
	// of 1 MiB eight. Behind it one way is tried of each value.
	maxVain = 8 << 20
	// maxNumbers is how many numbers of a value are told apart. Of one with more no way is tried.
	maxNumbers = 64 << 10
)

// number is a number in a block that JSON may print as it prints another: an integer that
// may have been a float, or a float without a fraction that may have been an integer.
type number struct {
	at, end int32
	group   int32 // numbers of a group are read alike
}

// readings is in how many ways a number can be read. The first is as it is.
func readings(item []byte) int {
	switch i, f, float := value(item); {
	case i == 0 && f == 0:
		return 3 // there are two zeros among the floats
	case float && (f != math.Trunc(f) || f < math.MinInt64 || f >= math.MaxInt64):
		return 1
	default:
		return 2
	}
}

// appendReading appends a number read in one of its ways.
func appendReading(out, item []byte, way int) []byte {
	switch i, f, float := value(item); {
	case way == 0:
		return append(out, item...)
	case way == 2 && i == 0 && f == 0:
		return appendFloat(out, math.Copysign(0, -math.Copysign(1, f)))
	case float:
		return appendInt(out, int64(f))
	default:
		return appendFloat(out, float64(i))
	}
}

// value is the number that an item of our own is, in the one form that it has.
func value(item []byte) (i int64, f float64, float bool) {
	major, n, _ := (&decoder{in: item}).head()
	switch major {
	case majorUint:
		return int64(n), 0, false
	case majorNegint:
		return -1 - int64(n), 0, false
	default:
		return 0, math.Float64frombits(n), true
	}
}

// ways are the ways to read the numbers of a block.
type ways struct {
	block   []byte
	numbers []number
	radix   []int // of each group: in how many ways
	single  bool  // each number is a group, and there are no more than maxWays
}

// waysOf finds the ways to read the numbers of a block of our own, of which there may be
// but one. It reports false where these are too many numbers.
func waysOf(block []byte) (w *ways, ok bool) {
	w = &ways{block: block, single: true}
	d, name, count := decoder{in: block}, []byte(nil), 1
	groups := map[string]int32{} // by the text before a number, mostly the name of its member
	for d.pos < len(d.in) {
		at := d.pos
		major, n, err := d.head()
		if err != nil {
			return nil, false
		}
		switch {
		case major == majorUint, major == majorNegint, d.in[at] == float64Head:
			radix := readings(block[at:d.pos])
			if radix == 1 {
				continue
			}
			if len(w.numbers) == maxNumbers {
				return nil, false
			}
			count = min(count*radix, maxWays+1)
			w.add(groups, name, number{at: int32(at), end: int32(d.pos)}, radix)
		case major == majorText, major == majorBytes:
			text, err := d.take(n)
			if err != nil {
				return nil, false
			}
			name = text
		}
	}
	if count > maxWays {
		w.single = false
		return w, true
	}
	w.radix = nil
	for i, n := range w.numbers {
		w.numbers[i].group = int32(i)
		w.radix = append(w.radix, readings(block[n.at:n.end]))
	}
	return w, true
}

// add adds a number to the group of a name. Where there are very many names, the last
// ones share a group.
func (w *ways) add(groups map[string]int32, name []byte, n number, radix int) {
	g, ok := groups[string(name)]
	switch {
	case ok:
	case len(w.radix) == maxWays:
		g = maxWays - 1
	default:
		g = int32(len(w.radix))
		groups[string(name)], w.radix = g, append(w.radix, 1)
	}
	n.group = g
	w.radix[g] = max(w.radix[g], radix)
	w.numbers = append(w.numbers, n)
}

// all are the ways beside that in which the block is, the likelier ones first, since
// there may be too many to try.
func (w *ways) all() iter.Seq[[]int] {
	return func(yield func([]int) bool) {
		first := len(w.radix) > 2
		if first && !w.likely(yield) {
			return
		}
		for way := make([]int, len(w.radix)); w.next(way); {
			if (!first || !likely(way)) && !yield(way) {
				return
			}
		}
	}
}

// likely are the ways that are likely: all groups read otherwise, all but one, and one alone.
func (w *ways) likely(yield func([]int) bool) bool {
	way := make([]int, len(w.radix))
	for _, usual := range []int{1, 0} {
		for g := range way {
			way[g] = usual
		}
		if usual == 1 && !yield(way) {
			return false
		}
		for g := range way {
			way[g] = 1 - usual
			if !yield(way) {
				return false
			}
			way[g] = usual
		}
	}
	return true
}

// likely reports whether a way of more than two groups is one of these.
func likely(way []int) bool {
	var n [3]int // groups that are read so
	for _, as := range way {
		n[as]++
	}
	return n[2] == 0 && (n[0] <= 1 || n[1] == 1)
}

// next counts on, and reports whether there is another way.
func (w *ways) next(way []int) bool {
	for g := range way {
		if way[g]++; way[g] < w.radix[g] {
			return true
		}
		way[g] = 0
	}
	return false
}

// find tries at most so many ways for the block that the CID names. It reports how many
// bytes it has hashed, and whether there are no other ways.
func (w *ways) find(c cid.Cid, limit int) (block []byte, hashed int, all bool) {
	var out []byte
	tried := 0
	for way := range w.all() {
		if tried == limit {
			return nil, hashed, false
		}
		tried++
		out = w.appendBlock(out[:0], way)
		hashed += len(out)
		if len(out) <= MaxCBOR && matches(c, out) {
			return bytes.Clone(out), hashed, false
		}
	}
	return nil, hashed, w.single
}

// appendBlock appends the block with its numbers read in a way.
func (w *ways) appendBlock(out []byte, way []int) []byte {
	from := int32(0)
	for _, n := range w.numbers {
		if as := way[n.group]; as > 0 {
			out = appendReading(append(out, w.block[from:n.at]...), w.block[n.at:n.end], as)
			from = n.end
		}
	}
	return append(out, w.block[from:]...)
}

// longest is about the most that a way makes of the block.
func (w *ways) longest() int { return len(w.block) + maxHead*len(w.numbers) }
