package reads

import (
	"context"
	"errors"
	"net/http"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/server/answer"
	"appview/store"
	"appview/store/index"
)

// Bounds of a page of records.
const (
	standardPage  = 100
	maxAdminPage  = 1000
	maxPublicPage = 100

	// maxSteps ends a page early that finds next to nothing to show, such as a
	// long row of records of inactive accounts.
	maxSteps = 50
)

// listRecords answers with a collection across all repos, or with the records of
// one repo. parse decides about unknown parameters.
func (rd *Reads) listRecords(parse answer.QueryParser, most int) pageEndpoint {
	return func(r *http.Request, page *recordPage) error {
		params, err := parse(r, "collection", "did", "order", "cursor", "limit")
		if err != nil {
			return err
		}
		filter, err := answer.ParseFilter(params)
		if err != nil {
			return err
		}
		by, err := parseOrder(params["order"], filter)
		if err != nil {
			return err
		}
		limit, err := answer.LimitOf(params["limit"], standardPage, most)
		if err != nil {
			return err
		}
		at, err := parseCursor(params["cursor"], by, filter.Collection, filter.DID)
		if err != nil {
			return err
		}
		read := map[order]func(context.Context, cursor, *recordPage) error{
			byIndexed: rd.newestRecords, byKey: rd.recordsByKey, byRepo: rd.repoRecords,
		}[by]
		page.print(limit, (&printer{provenance: true}).append)
		return read(r.Context(), at, page)
	}
}

// parseOrder refuses orders that a query cannot be answered in.
func parseOrder(text string, filter index.Filter) (order, error) {
	switch by := order(text); {
	case by != "" && by != byIndexed && by != byKey:
		return "", answer.BadRequest("order %s is neither indexed nor rkey", answer.Quoted(text))
	case filter.DID != "" && by == byIndexed:
		return "", answer.BadRequest("with did, records come by collection and record key: leave order out")
	case filter.DID != "":
		return byRepo, nil
	case filter.Collection == "":
		return "", answer.BadRequest("name a collection, a did, or both")
	case by == byKey:
		return byKey, nil
	default:
		return byIndexed, nil
	}
}

// newestRecords lists a collection, the latest indexed records first.
func (rd *Reads) newestRecords(ctx context.Context, at cursor, page *recordPage) error {
	for range maxSteps {
		next, err := rd.store.Index.Newest(ctx, at.collection, at.number, page.step(), page.add)
		if err != nil {
			return err
		}
		if next == 0 {
			page.cursor = ""
			return nil
		}
		at.number = next
		page.cursor = at.String()
		if page.full() {
			return nil
		}
		if err := page.flush(); err != nil {
			return err
		}
	}
	return nil
}

// recordsByKey lists a collection, the highest record keys first.
func (rd *Reads) recordsByKey(ctx context.Context, at cursor, page *recordPage) error {
	var below *index.KeyPlace
	if at.after != "" {
		below = &index.KeyPlace{RKey: at.after, Repo: uint32(at.number)}
	}
	for range maxSteps {
		next, err := rd.store.Index.ByKey(ctx, at.collection, below, page.step(), page.add)
		if err != nil {
			return err
		}
		if next == nil {
			page.cursor = ""
			return nil
		}
		below, at.after, at.number = next, next.RKey, uint64(next.Repo)
		page.cursor = at.String()
		if page.full() {
			return nil
		}
		if err := page.flush(); err != nil {
			return err
		}
	}
	return nil
}

// repoRecords lists one repo by collection, each by descending record key.
func (rd *Reads) repoRecords(ctx context.Context, at cursor, page *recordPage) error {
	repo, err := rd.store.Index.Repo(ctx, at.did)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil
	case err != nil:
		return err
	case !repo.Active():
		return nil
	}
	collections := []syntax.NSID{at.collection}
	if at.collection == "" {
		collections = repo.RepoCollections()
	}
	for _, c := range collections {
		if c < at.at {
			continue
		}
		if c > at.at {
			at.at, at.after = c, ""
		}
		for {
			if page.full() {
				page.cursor, err = rd.repoCursor(ctx, at, collections)
				return err
			}
			p := index.RepoPage{DID: at.did, Collection: c, After: at.after, Limit: page.step()}
			more, err := rd.store.Index.RepoRecords(ctx, p, page.add)
			if err != nil {
				return err
			}
			if err := page.flush(); err != nil {
				return err
			}
			if !more {
				break
			}
			at.after = page.last
		}
	}
	return nil
}

// repoCursor is the cursor of a full page, empty if nothing follows it.
func (rd *Reads) repoCursor(ctx context.Context, at cursor, collections []syntax.NSID) (string, error) {
	after := at.after
	for _, c := range collections {
		if c < at.at {
			continue
		}
		if c > at.at {
			after = ""
		}
		p := index.RepoPage{DID: at.did, Collection: c, After: after, Limit: 1}
		found := false
		_, err := rd.store.Index.RepoRecords(ctx, p, func(*index.Record) error { found = true; return nil })
		if err != nil {
			return "", err
		}
		if found {
			return at.String(), nil
		}
	}
	return "", nil
}
