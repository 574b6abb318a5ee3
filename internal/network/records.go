package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/network/outcome"
	"appview/internal/network/polite"
	"appview/internal/network/repo"
	"appview/internal/network/transport"
	"appview/internal/record"
)

const (
	methodListRecords  = "com.atproto.repo.listRecords"
	methodDescribeRepo = "com.atproto.repo.describeRepo"

	maxPageBody    = 32 << 20 // bytes of a page of records
	maxListed      = 1000     // records on a page, whatever was asked
	maxDescription = 1 << 20  // bytes of a repo's description
)

// pageLimits are the numbers of records asked for on one page: the first, and
// then fewer each time the page turns out too large.
func pageLimits() [4]int { return [4]int{100, 20, 4, 1} }

// Listed is one entry of a page, unchecked: not even that it belongs to the
// repo. What was missing is empty, and all of it is if anything was there twice.
type Listed struct {
	URI   string
	CID   string
	Value json.RawMessage
}

// RecordsPage is one page of a repo's collection. An empty cursor ends the
// listing. The values of a page are slices of one buffer, which counts against
// the budget of bodies until Close.
type RecordsPage struct {
	Records []Listed
	Cursor  string
	Limit   int // how many records were asked for

	grant polite.Grant
}

// Close gives the page's memory back to the budget: nothing of it is to be used
// any more. It may be called twice.
func (p *RecordsPage) Close() {
	p.Records = nil
	p.grant.Release()
}

// ListRecords reads one page, in the host's own order: newest record key first.
// An account that the host does not serve is outcome.ReasonNotFound, whatever became of
// it: RepoStatus tells. Whoever holds a page that is not closed must not ask for
// another one.
func (c *Client) ListRecords(ctx context.Context, host Host, did syntax.DID, collection syntax.NSID, cursor string) (RecordsPage, error) {
	query := url.Values{"repo": {did.String()}, "collection": {collection.String()}}
	if cursor != "" {
		query.Set("cursor", cursor)
	}
	var tooLarge error
	for _, limit := range pageLimits() {
		query.Set("limit", strconv.Itoa(limit))
		page, err := c.listRecords(ctx, newRequest(methodListRecords, host, did.String(), xrpc(methodListRecords, query), maxPageBody))
		if e, ok := errors.AsType[*Error](err); !ok || e.Reason != outcome.ReasonTooLarge {
			page.Limit = limit
			return page, err
		}
		tooLarge = err
	}
	return RecordsPage{}, tooLarge
}

func (c *Client) listRecords(ctx context.Context, q transport.Request) (RecordsPage, error) {
	a, err := c.fetch(ctx, q)
	if err != nil {
		return RecordsPage{}, err
	}
	page, err := readRecords(a.Body)
	if err != nil {
		a.Release()
		return RecordsPage{}, badAnswer(q.Op, a.Host, err)
	}
	page.grant = a.Grant
	return page, nil
}

// readRecords reads {"records":[{"uri":…,"cid":…,"value":…},…],"cursor":…}.
func readRecords(body []byte) (RecordsPage, error) {
	var page RecordsPage
	listed := false
	ended := false
	err := record.ScanObject(body, func(s *record.Scanner, key string) (err error) {
		switch key {
		case "cursor":
			if ended {
				return s.Bad("cursor is given twice")
			}
			ended = true
			page.Cursor, err = readCursor(s)
			return err
		case "records":
			if listed || s.Peek() != '[' {
				return s.Bad("records is no array, or given twice")
			}
			listed = true
			return s.Array(func() error { return page.add(s) })
		default:
			err = s.Skip()
			return err
		}
	})
	if err == nil && !listed {
		err = errors.New("no records in it")
	}
	return page, err
}

// add reads one entry of the page.
func (p *RecordsPage) add(s *record.Scanner) error {
	if len(p.Records) == maxListed {
		return fmt.Errorf("more than %d records", maxListed)
	}
	var entry Listed
	if s.Peek() != '{' {
		p.Records = append(p.Records, entry)
		return s.Skip()
	}
	var seen [3]int // uri, cid, value
	err := s.Object(func(key string) (err error) {
		switch key {
		case "uri":
			seen[0]++
			entry.URI, err = s.Text()
		case "cid":
			seen[1]++
			entry.CID, err = s.Text()
		case "value":
			seen[2]++
			entry.Value, err = s.Value()
		default:
			err = s.Skip()
		}
		return err
	})
	if slices.Max(seen[:]) > 1 {
		entry = Listed{} // it says two things
	}
	p.Records = append(p.Records, entry)
	return err
}

// Description says which collections a repo has records in, and which names among them
// are no collection's.
type Description struct {
	Collections []syntax.NSID
	Rejected    repo.Rejects
}

// DescribeRepo asks for the collections that a repo has records in.
func (c *Client) DescribeRepo(ctx context.Context, host Host, did syntax.DID) (Description, error) {
	q := newRequest(methodDescribeRepo, host, did.String(), xrpc(methodDescribeRepo, url.Values{"repo": {did.String()}}), maxDescription)
	a, err := c.fetch(ctx, q)
	if err != nil {
		return Description{}, err
	}
	defer a.Release()
	d, err := readDescription(a.Body, did)
	if err != nil {
		return Description{}, badAnswer(q.Op, a.Host, err)
	}
	if len(d.Collections) > repo.MaxCollections {
		return Description{}, &Error{Op: q.Op, Host: a.Host, Reason: outcome.ReasonTooLarge, Err: fmt.Errorf("more than %d collections", repo.MaxCollections)}
	}
	return d, nil
}

// readDescription reads {"did":…,"collections":[…],…}.
func readDescription(body []byte, did syntax.DID) (d Description, err error) {
	listed, of := false, ""
	names := map[string]bool{}
	err = record.ScanObject(body, func(s *record.Scanner, key string) (err error) {
		switch key {
		case "did":
			of, err = s.Text()
			return err
		case "collections":
			if listed || s.Peek() != '[' {
				return s.Bad("collections is no array, or given twice")
			}
			listed = true
			return s.Array(func() error { return d.add(s, names) })
		default:
			err = s.Skip()
			return err
		}
	})
	switch {
	case err != nil:
		return d, err
	case !listed:
		return d, errors.New("no collections in it")
	case of != did.String():
		return d, fmt.Errorf("it describes %.100q", of)
	}
	return d, nil
}

// add reads one name of a description. A name that is given twice counts once, as long
// as there are not so many that to remember them would cost too much.
func (d *Description) add(s *record.Scanner, names map[string]bool) error {
	name, err := s.Text()
	if err != nil || names[name] {
		return err
	}
	if len(names) <= repo.MaxCollections {
		names[name] = true
	}
	if c, err := record.ParseCollection(name); err != nil {
		d.Rejected = d.Rejected.Add(1, name)
	} else if len(d.Collections) <= repo.MaxCollections {
		d.Collections = append(d.Collections, c)
	}
	return nil
}
