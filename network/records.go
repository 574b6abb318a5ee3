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

	"appview/network/outcome"
	"appview/network/repo"
	"appview/record"
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

	grant grant
}

// Close gives the page's memory back to the budget: nothing of it is to be used
// any more. It may be called twice.
func (p *RecordsPage) Close() {
	p.Records = nil
	p.grant.release()
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
		page, err := c.listRecords(ctx, call{
			op: methodListRecords, host: host, target: xrpc(methodListRecords, query), limit: maxPageBody, subject: did.String(),
		})
		if e, ok := errors.AsType[*Error](err); !ok || e.Reason != outcome.ReasonTooLarge {
			page.Limit = limit
			return page, err
		}
		tooLarge = err
	}
	return RecordsPage{}, tooLarge
}

func (c *Client) listRecords(ctx context.Context, q call) (RecordsPage, error) {
	a, err := c.fetch(ctx, q)
	if err != nil {
		return RecordsPage{}, err
	}
	page, err := readRecords(a.body)
	if err != nil {
		a.release()
		return RecordsPage{}, badAnswer(q.op, a.host, err)
	}
	page.grant = a.grant
	return page, nil
}

// readRecords reads {"records":[{"uri":…,"cid":…,"value":…},…],"cursor":…}.
func readRecords(body []byte) (RecordsPage, error) {
	var page RecordsPage
	listed := false
	ended := false
	err := scan(body, func(s *scanner, key string) (err error) {
		switch key {
		case "cursor":
			if ended {
				return s.bad("cursor is given twice")
			}
			ended = true
			page.Cursor, err = s.cursor()
			return err
		case "records":
			if listed || s.peek() != '[' {
				return s.bad("records is no array, or given twice")
			}
			listed = true
			return s.array(func() error { return page.add(s) })
		default:
			_, err = s.value()
			return err
		}
	})
	if err == nil && !listed {
		err = errors.New("no records in it")
	}
	return page, err
}

// add reads one entry of the page.
func (p *RecordsPage) add(s *scanner) error {
	if len(p.Records) == maxListed {
		return fmt.Errorf("more than %d records", maxListed)
	}
	var entry Listed
	if s.peek() != '{' {
		p.Records = append(p.Records, entry)
		_, err := s.value()
		return err
	}
	var seen [3]int // uri, cid, value
	err := s.object(func(key string) (err error) {
		switch key {
		case "uri":
			seen[0]++
			entry.URI, err = s.text()
		case "cid":
			seen[1]++
			entry.CID, err = s.text()
		case "value":
			seen[2]++
			entry.Value, err = s.value()
		default:
			_, err = s.value()
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
	q := call{
		op: methodDescribeRepo, host: host, limit: maxDescription, subject: did.String(),
		target: xrpc(methodDescribeRepo, url.Values{"repo": {did.String()}}),
	}
	a, err := c.fetch(ctx, q)
	if err != nil {
		return Description{}, err
	}
	defer a.release()
	d, err := readDescription(a.body, did)
	if err != nil {
		return Description{}, badAnswer(q.op, a.host, err)
	}
	if len(d.Collections) > repo.MaxCollections {
		return Description{}, &Error{Op: q.op, Host: a.host, Reason: outcome.ReasonTooLarge, Err: fmt.Errorf("more than %d collections", repo.MaxCollections)}
	}
	return d, nil
}

// readDescription reads {"did":…,"collections":[…],…}.
func readDescription(body []byte, did syntax.DID) (d Description, err error) {
	listed, of := false, ""
	names := map[string]bool{}
	err = scan(body, func(s *scanner, key string) (err error) {
		switch key {
		case "did":
			of, err = s.text()
			return err
		case "collections":
			if listed || s.peek() != '[' {
				return s.bad("collections is no array, or given twice")
			}
			listed = true
			return s.array(func() error { return d.add(s, names) })
		default:
			_, err = s.value()
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
func (d *Description) add(s *scanner, names map[string]bool) error {
	name, err := s.text()
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
