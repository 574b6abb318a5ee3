package backfill

import (
	"context"
	"errors"
	"fmt"

	"appview/network/outcome"
	"appview/network/repo"
	"appview/store"
)

// settleRead hands over what was read of a repo. exact says that all of it was
// seen at one rev.
func (w *worker) settleRead(ctx context.Context, h hand, r *reader, exact bool) {
	unclear := r.unclear
	w.settle(ctx, h, store.Settlement{
		DID: h.DID, Reading: r.reading(r.segments), Attempts: r.o.Attempts + 1,
		Complete: r.complete(exact), Kept: keptOf(r.at), Confirmed: r.confirmed, Floor: r.at.First, Exact: exact, Short: r.shortPages(exact),
		Account: store.AccountActive, Rejected: int64(r.rejects.Count),
		Judge: func(t store.Tally, guarded bool) store.Verdict {
			if !exact && unclear != "" {
				return store.Verdict{Class: string(outcome.ClassFailed), Reason: string(outcome.ReasonIncomplete), Detail: unclear}
			}
			return judge(t, exact && !guarded, r.rejects)
		},
	}, r.listed(), r.drop)
}

// judge tells what a complete reading came to.
func judge(t store.Tally, exact bool, rejects repo.Rejects) store.Verdict {
	reason, text := outcome.ReasonChangedDuringRead, ""
	switch {
	case t.Rejected > 0:
		reason = outcome.ReasonRejected
		if rejects.Count > 0 {
			text = fmt.Sprintf("no record can be addressed by %.100q, one of %d such paths or collections", rejects.First, rejects.Count)
		}
	case t.Records == 0:
		reason = outcome.ReasonEmpty
	case exact:
		reason = outcome.ReasonExact
	}
	return store.Verdict{Class: string(reason.Class()), Reason: string(reason), Detail: text}
}

// settleWithout settles a repo that could not be read. inferred says that the reason is
// nobody's word.
func (w *worker) settleWithout(ctx context.Context, h hand, o store.Owed, reason outcome.Reason, inferred bool) {
	verdict := store.Verdict{Class: string(reason.Class()), Reason: string(reason), Detail: o.Detail}
	w.log.DebugContext(ctx, "repo not read", "did", h.DID, "host", h.Host, "reason", reason, "attempt", o.Attempts, "err", o.Detail)
	s := store.Settlement{
		DID: h.DID, Reading: store.Reading{Host: h.Host}, Attempts: o.Attempts,
		Judge: func(store.Tally, bool) store.Verdict { return verdict },
	}
	if reason.Class() == outcome.ClassUnavailable {
		s.Account, s.Inferred = string(reason), inferred
		s.Purge = reason == outcome.ReasonDeleted || reason == outcome.ReasonTombstoned || reason == outcome.ReasonDenied
	}
	w.settle(ctx, h, s, 0, func() {})
}

// settle hands a settlement over. after is called when it is committed, or will
// not be.
func (w *worker) settle(ctx context.Context, h hand, s store.Settlement, records int, after func()) {
	err := w.b.cfg.Store.Settle(ctx, w.seq, s, func(err error) {
		after()
		h.done(err)
		if s.Short.More || errors.Is(err, store.ErrNotTheEnd) {
			notify(w.doubts) // this job has found it out, or another
		}
		if err != nil {
			return
		}
		w.rate.add(w.b.now(), records)
		if h.Host == unknownHost {
			notify(w.queues.changed) // it may have been the last
		}
	})
	if err != nil {
		after()
	}
	w.give(h, err)
}
