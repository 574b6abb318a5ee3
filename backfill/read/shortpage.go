package read

import (
	"context"
	"math/rand/v2"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/store/jobs"
)

// The reference PDS gives a cursor with every page that holds records, the last
// one too. Following it costs one request more for nearly every repo. A page that
// is shorter than was asked for is nearly always the last: a host whose short pages
// have proved to be that, in this job, is believed.
const (
	// MinEnds is how many short pages of a host are followed, and have to be the
	// end of their listings, before one is taken for the end without a look.
	MinEnds = 32
	// FollowOneIn is of how many that could be taken for the end one is followed all
	// the same. It is also of how many repos one has its status asked for though it need
	// not be.
	FollowOneIn = 50
	// maxEndBytes is how large a page may be that is taken for the end: a host may have
	// cut a larger one for its size.
	maxEndBytes = 128 << 10
)

// Follow decides whether a page that could be taken for the end is followed.
func Follow(syntax.DID) bool { return rand.N(FollowOneIn) == 0 }

// isEnd reports whether the page just read, which has a cursor, is not full and taken
// for the end of its listing. A page that is longer than any that was the
// end is not: a host may give fewer records at once than it is asked for.
func (r *reading) isEnd(ctx context.Context, l *listing) (bool, error) {
	if l.page.fresh == 0 || l.page.records >= l.page.limit {
		return false, nil
	}
	l.short = l.page.records
	if l.page.bytes > maxEndBytes || l.ambiguous {
		return false, nil // nothing shows what comes behind it
	}
	longest, err := r.loadLongestEnd(ctx, l.page.records)
	if err != nil || l.page.records > longest || r.cfg.Follow(r.owed.DID) {
		return false, err
	}
	return r.cfg.Store.MayEnd(ctx, r.cfg.Job, r.owed.Host, r.owed.DID, l.seg)
}

// loadLongestEnd is how long a page of the host may be that is taken for the end; 0 if
// none is yet. It only grows: what it was found to be is cached, and looked up again
// when it does not do for a page of so many records.
func (r *reading) loadLongestEnd(ctx context.Context, records int) (int, error) {
	if known, ok := r.longestEnd.Load(r.host); ok {
		if n, _ := known.(int); n >= records {
			return n, nil
		}
	}
	known, err := r.cfg.Store.Host(ctx, r.cfg.Job, r.owed.Host)
	if err != nil || known.Ends < MinEnds {
		return 0, err
	}
	r.longestEnd.Store(r.host, known.LongestEnd)
	return known.LongestEnd, nil
}

// refuteEnd notes that a short page was not the end of its listing, unless that is
// known of the host.
func (r *reading) refuteEnd(ctx context.Context) error {
	known, err := r.cfg.Store.Distrusted(ctx, r.owed.Host)
	r.pass.pageRefuted = r.pass.pageRefuted || !known
	return err
}

// shortPages is what was learnt of the host's short pages. Only a repo that was
// seen at one rev shows anything: else what came behind a page may be newer.
func (r *reading) shortPages() jobs.ShortPages {
	p := jobs.ShortPages{Assumed: r.pass.with(EndAssumed), Unprobed: r.assumed.Unprobed}
	if r.sure == Exact {
		p.Ends, p.More = r.pass.shortEnds, r.pass.pageRefuted
	}
	return p
}
