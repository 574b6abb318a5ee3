package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/store"
)

// Bounds of a page of records.
const (
	standardPage  = 100
	maxAdminPage  = 1000
	maxPublicPage = 100

	// readStep is how many records are read from the store at once. Each may be
	// as large as a record can be.
	readStep = 50
	// pageBytes ends a page early. Its cursor goes on behind it.
	pageBytes = 8 << 20
	// maxSteps ends a page early that finds next to nothing to show, such as a
	// long row of records of inactive accounts.
	maxSteps = 50
)

// recordPage is a page of records.
type recordPage struct {
	Records []json.RawMessage `json:"records"`
	Cursor  string            `json:"cursor,omitempty"`
}

// full tells whether the page shall not get any longer.
func (p recordPage) full(size, limit int) bool { return len(p.Records) >= limit || size >= pageBytes }

// listRecords answers with a collection across all repos, newest indexed first,
// or with the records of one repo.
func (s *Server) listRecords(most int) endpoint {
	return func(r *http.Request) (reply, error) {
		params, err := query(r, "collection", "did", "order", "cursor", "limit")
		if err != nil {
			return reply{}, err
		}
		collection, err := parseCollection(params["collection"])
		if err != nil {
			return reply{}, err
		}
		did, err := parseDID(params["did"])
		if err != nil {
			return reply{}, err
		}
		if err := checkOrder(params["order"], collection, did); err != nil {
			return reply{}, err
		}
		limit, err := limitOf(params["limit"], standardPage, most)
		if err != nil {
			return reply{}, err
		}
		at, err := parseCursor(params["cursor"], collection, did)
		if err != nil {
			return reply{}, err
		}
		read := s.newestRecords
		if did != "" {
			read = s.repoRecords
		}
		page, err := read(r.Context(), at, limit)
		if err != nil {
			return reply{}, err
		}
		return ok(page), nil
	}
}

// checkOrder refuses orders that a query cannot be answered in.
func checkOrder(order string, collection syntax.NSID, did syntax.DID) error {
	switch {
	case order != "" && order != "indexed" && order != "rkey":
		return badRequest("order %s is neither indexed nor rkey", quoted(order))
	case did != "" && order == "indexed":
		return badRequest("with did, records come by collection and record key: leave order out")
	case did != "":
		return nil
	case order == "rkey":
		return badRequest("order=rkey across repos is not offered yet: name a did, or use order=indexed")
	case collection == "":
		return badRequest("name a collection, a did, or both")
	}
	return nil
}

func (s *Server) newestRecords(ctx context.Context, at cursor, limit int) (recordPage, error) {
	page, size := recordPage{Records: []json.RawMessage{}}, 0
	for range maxSteps {
		list, next, err := s.cfg.Store.Newest(ctx, at.collection, at.below, min(readStep, limit-len(page.Records)))
		if err != nil {
			return page, err
		}
		for _, rec := range list {
			if size, err = page.add(rec, size); err != nil {
				return page, err
			}
		}
		at.below, page.Cursor = next, ""
		if next == 0 {
			return page, nil
		}
		page.Cursor = at.String()
		if page.full(size, limit) {
			return page, nil
		}
	}
	return page, nil
}

// add appends a record to the page, and its length to size.
func (p *recordPage) add(rec store.Record, size int) (int, error) {
	line, err := appendRecord(nil, rec, true)
	if err != nil {
		return size, err
	}
	p.Records = append(p.Records, line)
	return size + len(line), nil
}

// repoRecords lists one repo by collection, each by descending record key.
func (s *Server) repoRecords(ctx context.Context, at cursor, limit int) (recordPage, error) {
	page, size := recordPage{Records: []json.RawMessage{}}, 0
	repo, err := s.cfg.Store.Repo(ctx, at.did)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return page, nil
	case err != nil:
		return page, err
	case !repo.Active():
		return page, nil
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
			if page.full(size, limit) {
				return s.cutRepoPage(ctx, page, at, collections)
			}
			step := min(readStep, limit-len(page.Records))
			list, err := s.cfg.Store.RepoRecords(ctx, store.RepoPage{DID: at.did, Collection: c, After: at.after, Limit: step})
			if err != nil {
				return page, err
			}
			for _, rec := range list {
				if size, err = page.add(rec, size); err != nil {
					return page, err
				}
				at.after = rec.RKey
			}
			if len(list) < step {
				break
			}
		}
	}
	return page, nil
}

// cutRepoPage gives a full page its cursor, unless nothing follows it.
func (s *Server) cutRepoPage(ctx context.Context, page recordPage, at cursor, collections []syntax.NSID) (recordPage, error) {
	after := at.after
	for _, c := range collections {
		if c < at.at {
			continue
		}
		if c > at.at {
			after = ""
		}
		rest, err := s.cfg.Store.RepoRecords(ctx, store.RepoPage{DID: at.did, Collection: c, After: after, Limit: 1})
		if err != nil {
			return page, err
		}
		if len(rest) > 0 {
			page.Cursor = at.String()
			return page, nil
		}
	}
	return page, nil
}

// appendRecord appends a record as JSON. The order of its members is fixed, and
// no identifier holds anything that JSON would escape.
func appendRecord(dst []byte, rec store.Record, provenance bool) ([]byte, error) {
	member := func(before, value string) {
		dst = append(dst, before...)
		dst = append(dst, value...)
	}
	member(`{"uri":"`, rec.URI().String())
	member(`","cid":"`, rec.Body.CID.String())
	member(`","did":"`, rec.DID.String())
	member(`","collection":"`, rec.Collection.String())
	member(`","rkey":"`, rec.RKey.String())
	member(`","rev":"`, rec.Rev.String())
	member(`","indexed_at":"`, stamp(rec.IndexedAt))
	if provenance {
		member(`","provenance":"`, rec.Source.String())
	}
	dst = append(dst, `","value":`...)
	dst, err := appendValue(dst, rec)
	return append(dst, '}'), err
}

// appendValue appends a record's value on one line.
func appendValue(dst []byte, rec store.Record) ([]byte, error) {
	value, err := rec.Body.JSON()
	if err != nil {
		return dst, fmt.Errorf("record %s: %w", rec.URI(), err)
	}
	if rec.Body.Verified {
		return append(dst, value...), nil
	}
	// As received, which may be over many lines.
	var line bytes.Buffer
	if err := json.Compact(&line, value); err != nil {
		return dst, fmt.Errorf("record %s: %w", rec.URI(), err)
	}
	return append(dst, line.Bytes()...), nil
}
