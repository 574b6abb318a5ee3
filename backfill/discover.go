package backfill

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"
	"unicode/utf8"

	"appview/backfill/read"
	"appview/internal/network"
	"appview/internal/network/outcome"
	"appview/internal/network/polite"
	"appview/store/jobs"
)

const (
	// maxPagesWithoutNew ends a listing that goes on without naming a repo that
	// it had not named before.
	maxPagesWithoutNew = 50
	// maxListingPages is far more than any listing has.
	maxListingPages = 500_000
	// didListing and allListing are the names under which the cursors of
	// listings are kept that are not those of one collection.
	didListing = "\x00did"
	allListing = "\x00all"
)

// errListing says that a relay's listing cannot be followed to its end.
var errListing = errors.New("the listing cannot be followed to its end")

// discover finds the repos of the job: the one it names, or those that the relay
// lists, and with them those that the index holds. When the relay fails, the job
// goes on with what was found, and fails at its end.
func (w *worker) discover(ctx context.Context) error {
	if w.listed.Load() {
		w.more()
		return nil
	}
	reason, err := w.list(ctx)
	if err != nil {
		return err
	}
	if reason != "" {
		w.log.ErrorContext(ctx, "discovery failed", "err", reason)
	}
	if err := w.b.cfg.Store.Work.EndDiscovery(ctx, w.seq, reason); err != nil {
		return err
	}
	w.listed.Store(true)
	w.more()
	notify(w.queues.changed)
	return nil
}

// list follows every listing of the job. reason says why the relay's could not
// be followed; err is the store's.
func (w *worker) list(ctx context.Context) (reason string, err error) {
	for done := !w.retry; !done; {
		done, err = w.b.cfg.Store.Work.DiscoverRetry(ctx, w.seq)
		if errors.Is(err, jobs.ErrNothingLeft) {
			return err.Error(), nil
		}
		if err != nil {
			return "", err
		}
		w.more()
	}
	if w.named {
		at, err := w.b.cfg.Store.Work.Listing(ctx, w.seq, didListing)
		if err != nil || at.Done {
			return "", err
		}
		_, err = w.b.cfg.Store.Work.Discover(ctx, w.seq, jobs.Discovery{
			Listing: didListing, DIDs: w.request.Named(), Cursor: jobs.Cursor{Pages: 1, Done: true},
		})
		return "", err
	}
	listings := []listing{{allListing, "listRepos", w.b.cfg.Network.Repos}}
	if len(w.targets) > 0 {
		listings = listings[:0]
		for _, c := range w.targets {
			listings = append(listings, listing{string(c), "listReposByCollection", func(ctx context.Context, cursor string) (network.ReposPage, error) {
				return w.b.cfg.Network.ReposByCollection(ctx, c, cursor)
			}})
		}
	}
	for _, l := range listings {
		err := w.follow(ctx, l, len(listings) == 1)
		var failed *network.Error
		switch {
		case err == nil:
		case errors.As(err, &failed):
			return advise(failed, fmt.Sprintf("carry the job on where its listing was left, with appview backfill retry %s", w.id)), nil
		case errors.Is(err, errListing):
			return err.Error(), nil
		default:
			return "", err
		}
	}
	for done := false; !done; {
		if done, err = w.b.cfg.Store.Work.DiscoverHeld(ctx, w.seq); err != nil {
			return "", err
		}
		w.more()
	}
	return "", nil
}

// listing is one of the relay's listings.
type listing struct {
	name string // in the store
	call string // at the relay
	page func(ctx context.Context, cursor string) (network.ReposPage, error)
}

// follow reads a listing from where it was left to its end. sole says that no
// other listing has named repos before it.
func (w *worker) follow(ctx context.Context, l listing, sole bool) error {
	at, err := w.b.cfg.Store.Work.Listing(ctx, w.seq, l.name)
	if err != nil || at.Done {
		return err
	}
	// A relay can lose its place between two processes of ours, or of its own: then it
	// begins anew, or does not take the cursor. What it names again is known already.
	stale, known, round := int64(0), at.Pages, circle{}
	relay := string(w.b.cfg.Network.Relay())
	anew := at.Relay != "" && at.Relay != relay
	if anew {
		w.log.WarnContext(ctx, "the relay is another one now, the listing begins anew", "listing", l.call, "host", relay, "was", at.Relay)
		at.Cursor = ""
	}
	for {
		page, err := w.page(ctx, l, at.Cursor)
		if !anew && at.Cursor != "" && refusesCursor(err) {
			w.log.WarnContext(ctx, "relay does not take its own cursor any more, the listing begins anew", "listing", l.call, "err", err)
			anew, at.Cursor, known, stale, round = true, "", at.Pages, 0, circle{}
			continue
		}
		if err != nil {
			return err
		}
		switch {
		case page.Cursor == "":
			at.Done = true
		case !utf8.ValidString(page.Cursor):
			return fmt.Errorf("%w: %s gave a cursor that is no text: %.100q", errListing, l.call, page.Cursor)
		case page.Cursor == at.Cursor, round.closed(page.Cursor):
			return fmt.Errorf("%w: %s gave the cursor %.100q twice", errListing, l.call, page.Cursor)
		case at.Pages >= maxListingPages:
			return fmt.Errorf("%w: %s has more than %d pages", errListing, l.call, maxListingPages)
		}
		at = jobs.Cursor{Cursor: page.Cursor, Pages: at.Pages + 1, Done: at.Done, Relay: relay}
		added, err := w.b.cfg.Store.Work.Discover(ctx, w.seq, jobs.Discovery{Listing: l.name, DIDs: page.DIDs, Inactive: page.Inactive, Cursor: at})
		if err != nil {
			return err
		}
		w.more()
		w.log.DebugContext(ctx, "listing page read", "listing", l.call, "repos", len(page.DIDs), "new", added, "invalid", page.Invalid)
		if at.Done {
			return nil
		}
		stale++
		if added > 0 || (!sole && len(page.DIDs) > 0) {
			stale = 0
		}
		if stale == maxPagesWithoutNew+known {
			return fmt.Errorf("%w: %s gave %d pages in a row without a new repo", errListing, l.call, stale)
		}
	}
}

// refusesCursor reports whether a relay may have refused a cursor.
func refusesCursor(err error) bool {
	var failed *network.Error
	return errors.As(err, &failed) && failed.Status == http.StatusBadRequest
}

// circle finds out that a sequence of cursors runs in a circle: each is compared
// with one that is left behind at ever longer intervals.
type circle struct {
	mark  string
	steps int
	next  int
}

// closed reports whether the cursor was seen before, some time after it was.
func (c *circle) closed(cursor string) bool {
	if c.steps > 0 && cursor == c.mark {
		return true
	}
	if c.steps == c.next {
		c.mark, c.next = cursor, 2*c.next+1
	}
	c.steps++
	return false
}

// page asks for one page, again when that may help, and waits as long as the
// relay wants it. A relay that answers, if only that it cannot, or that has answered
// before, is given as long as any host that asks for patience. So is one that gave the
// cursor: it is no mistake of the settings.
func (w *worker) page(ctx context.Context, l listing, cursor string) (network.ReposPage, error) {
	limited := w.b.now()
	defer w.relay.drop() // whatever comes of it, nobody waits any more
	for attempts := 1; ; {
		asked := w.b.now()
		page, err := l.page(ctx, cursor)
		var (
			failed *network.Error
			parked *network.Parked
			wait   time.Duration
		)
		switch {
		case err == nil:
			w.b.relayed.Store(true)
			w.relay.end(ctx, w, asked)
			return page, nil
		case errors.As(err, &parked) && parked.Why != polite.WhyDown:
			wait = max(parked.Until.Sub(w.b.now()), minPause)
			if parked.Why == polite.WhyNetwork {
				limited = w.b.now() // our own fault: the relay has not asked for it
				w.relay.reset(limited)
			}
		case errors.As(err, &parked):
			// The breaker speaks for a relay that does not answer: that is an attempt.
			failed = &network.Error{Reason: outcome.ReasonConnect, Op: l.call, Host: parked.Host, Err: w.b.cfg.Network.HostState(parked.Host).LastErr}
			wait = max(parked.Until.Sub(w.b.now()), minPause)
		case errors.As(err, &failed) && failed.Reason.Retryable():
			wait = backoff(w.b.cfg.Retry, attempts)
		default:
			return page, err
		}
		if failed != nil && failed.Status >= http.StatusInternalServerError || failed == nil && parked.Why == polite.WhyRateLimited {
			w.b.relayed.Store(true)
		}
		patient := failed == nil || !lacksMethod(failed) && (w.b.relayed.Load() || cursor != "")
		switch over := w.b.now().Sub(limited) > maxLimited; {
		case failed == nil && over:
			return page, &network.Error{Reason: outcome.ReasonRateLimited, Op: l.call, Host: parked.Host, Err: parked}
		case patient && over:
			failed.Err = fmt.Errorf("%w: nothing else for %s", cmp.Or(failed.Err, errors.New(string(failed.Reason))), maxLimited)
			return page, failed
		case !patient && attempts >= w.b.cfg.Attempts:
			return page, failed
		}
		if failed != nil {
			attempts++
			w.log.DebugContext(ctx, "relay did not answer, trying again", "host", failed.Host, "attempt", attempts, "err", failed)
		}
		w.awaitRelay(ctx, parked, failed, w.b.now().Add(wait))
		if !sleep(ctx, wait) {
			return page, ctx.Err()
		}
	}
}

// awaitRelay notes that the job waits for the relay. The turns that we give it
// ourselves, and our own network, are not what it is waited for.
func (w *worker) awaitRelay(ctx context.Context, parked *network.Parked, failed *network.Error, until time.Time) {
	switch {
	case failed != nil:
		w.relay.begin(ctx, w, failed.Host, until, read.Detail(failed))
	case parked.Why == polite.WhyRateLimited:
		w.relay.begin(ctx, w, parked.Host, until, parked.Answer)
	}
}

// lacksMethod reports whether a relay has said that it does not know the question.
func lacksMethod(err *network.Error) bool {
	switch err.Status {
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return true
	default:
		return err.Name == "MethodNotImplemented"
	}
}

// minPause keeps a wait that has just ended from becoming a busy loop.
const minPause = 50 * time.Millisecond

// advise says what happened at the relay and what can be done about it, before
// what was asked for is tried again.
func advise(err *network.Error, again string) string {
	help := "check that the relay is up and reachable from here, or choose another with --relay, then " + again
	switch {
	case lacksMethod(err):
		help = "this relay does not offer it: choose one that does with --relay (https://relay1.us-east.bsky.network does), then " + again
	case err.Reason == outcome.ReasonRefusedAddress || err.Reason == outcome.ReasonBadEndpoint:
		help = "the relay's address is not public: --allow-private-hosts lets appview use it"
	}
	return fmt.Sprintf("relay %s: %v: %s", err.Host, err, help)
}
