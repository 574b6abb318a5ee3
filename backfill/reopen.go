package backfill

import (
	"context"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// reopen puts repos back into the queues of hosts that turn out not to be trusted,
// until ctx ends.
func (w *worker) reopen(ctx context.Context) error {
	for {
		select {
		case <-w.doubts:
		case <-ctx.Done():
			return nil
		}
		told := map[string]bool{}
		for after, more := syntax.DID(""), true; more; more = after != "" {
			hosts, next, err := w.b.cfg.Store.Work.Reopen(ctx, w.seq, after)
			if err != nil {
				return ignoreStale(stopped(ctx, err))
			}
			for _, host := range hosts {
				w.queues.ready(host)
				if !told[host] {
					w.log.WarnContext(ctx, "what was assumed of a host has turned out wrong, repos are read anew", "host", host)
				}
				told[host] = true
			}
			after = next
		}
	}
}
