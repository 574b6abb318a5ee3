package read

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/network"
	"appview/internal/network/outcome"
)

// reader is one without a network or a store.
func reader() *Reader {
	return New(Config{Attempts: 5, Limit: time.Hour, Buffered: new(atomic.Int64), Progress: func(string) {}, Now: time.Now, Log: slog.New(slog.DiscardHandler)})
}

func TestRepoWithoutEndIsTooLarge(t *testing.T) {
	t.Parallel()
	for name, page := range map[string]int{"many pages": 1, "large pages": maxBytes / 10} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := &reading{Reader: reader()}
			for n := 0; n <= maxPages; n++ {
				var failed *network.Error
				if err := r.countBytes(page); errors.As(err, &failed) {
					if failed.Reason != outcome.ReasonTooLarge {
						t.Errorf("after %d pages: %v", n, err)
					}
					return
				}
			}
			t.Errorf("%d pages are accepted", maxPages+1)
		})
	}
}

// A page counts against the memory that pages of all hosts share, and a host may take
// hours over a whole repo.
func TestNoPageIsHeldWhileARepoIsFetched(t *testing.T) {
	t.Parallel()
	r := &reading{Reader: reader(), page: network.RecordsPage{Records: make([]network.Listed, 1)}}
	r.cfg.Network.Lookup = func(context.Context, syntax.DID) (network.Identity, error) {
		if r.page.Records != nil {
			t.Error("the page is held")
		}
		return network.Identity{}, context.Canceled
	}
	if err := r.readWhole(t.Context()); r.how == Whole || !errors.Is(err, context.Canceled) {
		t.Fatalf("%s, %v", r.state, err)
	}
}
