package service

import (
	"context"
	"time"
)

const (
	// softMemory is from where on memory is looked for more often than usual, beside
	// what large bodies and answers hold. Hosts that send such make a lot of garbage, which must not
	// pile up on a small machine: with a step of theirs it comes to 128 MiB.
	softMemory = 112 << 20
	// heldStep is by how much the limit goes up and down with them.
	heldStep  = 16 << 20
	heldEvery = time.Second
)

// limitMemory keeps the soft limit of memory above what is held, until ctx ends. With
// a limit below what is in use, nothing is found however often it is looked for, and
// half of the processors would do nothing else.
func limitMemory(ctx context.Context, held func() int64, set func(int64) int64) {
	tick := time.NewTicker(heldEvery)
	defer tick.Stop()
	for limit := int64(0); ; {
		steps := (held() + heldStep - 1) / heldStep
		if now := softMemory + steps*heldStep; now != limit {
			limit = now
			set(limit)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
