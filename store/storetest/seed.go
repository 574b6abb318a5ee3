package storetest

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
)

// What tests with random steps do is chosen by these, if they are set. The names
// are no APPVIEW_ variables, which the program would refuse.
const (
	oneSeed   = "SOAK_SEED"  // to run a seed that has failed again
	manySeeds = "SOAK_SEEDS" // to run so many seeds that nobody has chosen
)

// Seed chooses what a test with random steps does. Tests name it in their subtests,
// so that it is printed with every failure.
type Seed uint64

// String is the seed as SOAK_SEED takes it.
func (s Seed) String() string { return strconv.FormatUint(uint64(s), 10) }

// Rand is a source of what the seed chooses.
func (s Seed) Rand() *rand.Rand { return rand.New(rand.NewPCG(uint64(s), 0)) }

// Soaking is how many seeds a long run is to take, 0 if this is none.
func Soaking(tb testing.TB) int {
	tb.Helper()
	return int(number(tb, manySeeds))
}

// Seeds are those that a test is to run with: the first few, which is quick and the
// same every time, unless the environment says otherwise.
func Seeds(tb testing.TB, few int) (seeds []Seed) {
	tb.Helper()
	if n := number(tb, oneSeed); n > 0 {
		return []Seed{Seed(n)}
	}
	if n := Soaking(tb); n > 0 {
		for range n {
			seeds = append(seeds, Seed(rand.Uint32())+1)
		}
		tb.Logf("seeds: %v; %s=n runs one of them again", seeds, oneSeed)
		return seeds
	}
	if testing.Short() {
		few = (few + 3) / 4
	}
	for n := range few {
		seeds = append(seeds, Seed(n+1))
	}
	return seeds
}

func number(tb testing.TB, name string) uint64 {
	tb.Helper()
	text := os.Getenv(name)
	if text == "" {
		return 0
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		tb.Fatalf("%s: %v", name, err)
	}
	return n
}

// Long skips a test that takes seconds where -short asks for the quick ones alone.
func Long(tb testing.TB) {
	tb.Helper()
	if testing.Short() {
		tb.Skip("takes long: go test without -short has it")
	}
}
