package backfill

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// drawn is a sample of n repos over hosts of the given weights.
func drawn(rng *rand.Rand, n int, weights []float64) map[string]int {
	found := map[string]int{}
	for range n {
		at, u := 0, rng.Float64()
		for u -= weights[at]; u > 0 && at < len(weights)-1; u -= weights[at] {
			at++
		}
		found[fmt.Sprint(at)]++
	}
	return found
}

func TestTheLargestShareOfASampleIsNotLuck(t *testing.T) {
	t.Parallel()
	even, skewed := make([]float64, 100), make([]float64, 100)
	for i := range even {
		even[i], skewed[i] = 0.01, 0.7/99
	}
	skewed[0] = 0.3
	rng := rand.New(rand.NewPCG(1, 2))
	for name, c := range map[string]struct{ weights []float64 }{"even": {even}, "skewed": {skewed}} {
		var naive, shrunk, off float64
		const rounds = 300
		for range rounds {
			found := drawn(rng, 200, c.weights)
			most, sum := 0, 0.0
			largest := 0.0
			for host, share := range shrink(found) {
				most, largest = max(most, found[host]), max(largest, share)
				sum += share
			}
			off = max(off, math.Abs(sum-1))
			naive += float64(most) / 200 / rounds
			shrunk += largest / rounds
		}
		truth := c.weights[0]
		t.Logf("%s: truly %.3f, largest count %.3f, estimate %.3f", name, truth, naive, shrunk)
		if off > 1e-9 {
			t.Errorf("%s: the shares add up to 1 but for %g", name, off)
		}
		if math.Abs(shrunk-truth) > 0.5*truth || (name == "even" && naive < 2*truth) {
			t.Errorf("%s: the estimate is %.3f, truly %.3f", name, shrunk, truth)
		}
	}
	for found, want := range map[int]float64{1: 1, 7: 1} {
		if got := shrink(map[string]int{"a": found})["a"]; got != want {
			t.Errorf("the only host, drawn %d times, has the share %v", found, got)
		}
	}
	if got := shrink(nil); len(got) != 0 {
		t.Errorf("nothing drawn gives %v", got)
	}
}
