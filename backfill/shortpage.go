package backfill

import (
	"context"
	"errors"
	"math/rand/v2"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/store"
)

// The reference PDS gives a cursor with every page that holds records, the last
// one too. Following it costs one request more for nearly every repo. A page that
// is shorter than was asked for is nearly always the last: a host whose short pages
// have proved to be that, in this job, is believed.
const (
	// minEnds is how many short pages of a host are followed, and have to be the
	// end of their listings, before one is taken for the end without a look.
	minEnds = 32
	// checkOneIn is of how many that could be taken for the end one is followed all
	// the same.
	checkOneIn = 50
	// maxEndBytes is how large a page may be that is taken for the end: a host may have
	// cut a larger one for its size.
	maxEndBytes = 128 << 10
)

// checkNow decides whether a page that could be taken for the end is followed.
func checkNow(syntax.DID) bool { return rand.N(checkOneIn) == 0 }

// isEnd reports whether the page just read, which has a cursor, is not full and taken
// for the end of its listing. A page that is longer than any that was the
// end is not: a host may give fewer records at once than it is asked for.
func (r *reader) isEnd(ctx context.Context, l *recordListing) (bool, error) {
	if l.page.fresh == 0 || l.page.records >= l.page.limit {
		return false, nil
	}
	l.short = l.page.records
	if l.page.bytes > maxEndBytes || l.partial {
		return false, nil // nothing shows what comes behind it
	}
	longest, err := r.w.longestEnd(ctx, r.o.Host, l.page.records)
	if err != nil || l.page.records > longest || r.w.b.check(r.o.DID) {
		return false, err
	}
	return r.w.b.cfg.Store.MayEnd(ctx, r.w.seq, r.o.Host, r.o.DID, l.seg)
}

// longestEnd is how long a page of a host may be that is taken for the end; 0 if
// none is yet. It only grows: what it was found to be is kept, and looked up again
// when it does not do for a page of so many records.
func (w *worker) longestEnd(ctx context.Context, host string, records int) (int, error) {
	if known, ok := w.ends.Load(host); ok {
		if n, _ := known.(int); n >= records {
			return n, nil
		}
	}
	known, err := w.b.cfg.Store.Host(ctx, w.seq, host)
	if err != nil || known.Ends < minEnds {
		return 0, err
	}
	w.ends.Store(host, known.LongestEnd)
	return known.LongestEnd, nil
}

// goesOn notes that a short page was not the end of its listing, unless that is
// known of the host.
func (r *reader) goesOn(ctx context.Context) error {
	known, err := r.w.b.cfg.Store.Distrusted(ctx, r.o.Host)
	r.at.More = r.at.More || !known
	return err
}

// lapsed reports whether an end was assumed in an earlier step that must not be, or
// whether what earlier steps brought may be deleted, as when the account was denied, or
// what they kept has changed, or it is not known what they have listed.
func (r *reader) lapsed(ctx context.Context, at store.Position) (bool, error) {
	repo, err := r.w.b.cfg.Store.Repo(ctx, r.o.DID)
	switch {
	case errors.Is(err, store.ErrNotFound):
	case err != nil:
		return false, err
	case !repo.Active():
		return true, nil
	}
	if len(at.Read) > 0 && !at.Marked {
		return true, nil
	}
	if keeps, err := r.keeps(ctx, at); err != nil || !keeps {
		return true, err
	}
	for c, read := range at.Read {
		if !read.Assumed {
			continue
		}
		if may, err := r.w.b.cfg.Store.MayEnd(ctx, r.w.seq, r.o.Host, r.o.DID, store.Segment{Collection: c}); err != nil || !may {
			return true, err
		}
	}
	return false, nil
}

// shortPages is what was learnt of the host's short pages. Only a repo that was
// seen at one rev shows anything: else what came behind a page may be newer.
func (r *reader) shortPages(exact bool) (p store.ShortPages) {
	if exact {
		p.Ends, p.More = r.ends, r.at.More
	}
	for c, read := range r.at.Read {
		if read.Assumed {
			p.Assumed = append(p.Assumed, c)
		}
	}
	return p
}

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
			hosts, next, err := w.b.cfg.Store.Reopen(ctx, w.seq, after)
			if err != nil {
				return ignoreStale(stopped(ctx, err))
			}
			for _, host := range hosts {
				w.queues.ready(host)
				if !told[host] {
					w.log.WarnContext(ctx, "short pages have turned out not to be the end of listings, repos are read anew", "host", host)
				}
				told[host] = true
			}
			after = next
		}
	}
}
