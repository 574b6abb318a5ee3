package network

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/network/outcome"
	"appview/internal/record"
)

const (
	methodReposByCollection = "com.atproto.sync.listReposByCollection"
	methodRepos             = "com.atproto.sync.listRepos"

	relayLimit    = 1000    // repos asked for on one page
	maxRelayRepos = 10_000  // the most that any relay gives, whatever was asked
	maxRelayBody  = 4 << 20 // bytes of a page
)

// ReposPage is one page of a relay's listing. An empty cursor ends the listing.
type ReposPage struct {
	DIDs     []syntax.DID // as listed: a DID may come twice
	Inactive []syntax.DID // of these, those whose account is said not to be active
	Invalid  int          // entries that were no DID, left out
	Cursor   string
}

// ReposByCollection lists repos that have, or once had, records of a collection.
// A cursor can be continued later, at the same relay.
func (c *Client) ReposByCollection(ctx context.Context, collection syntax.NSID, cursor string) (ReposPage, error) {
	page, err := c.listRepos(ctx, methodReposByCollection, url.Values{"collection": {collection.String()}}, cursor)
	if e, ok := errors.AsType[*Error](err); ok && e.NoSuchMethod() {
		e.Err = errors.New("this relay cannot list repos by collection: use one that can, such as " + DefaultRelay)
	}
	return page, err
}

// Repos lists every repo that the relay knows, the inactive ones too.
func (c *Client) Repos(ctx context.Context, cursor string) (ReposPage, error) {
	return c.listRepos(ctx, methodRepos, url.Values{}, cursor)
}

func (c *Client) listRepos(ctx context.Context, method string, query url.Values, cursor string) (ReposPage, error) {
	query.Set("limit", strconv.Itoa(relayLimit))
	if cursor != "" {
		query.Set("cursor", cursor)
	}
	// Without a subject the breaker never opens: the relay's errors are its caller's to count.
	q := newServiceRequest(method, c.relay, "", xrpc(method, query), maxRelayBody)
	a, err := c.fetch(ctx, q)
	if err != nil {
		return ReposPage{}, err
	}
	defer a.Release()
	page, err := readRepos(a.Body)
	if err != nil {
		return ReposPage{}, badAnswer(q.Op, a.Host, err)
	}
	return page, nil
}

func xrpc(method string, query url.Values) string { return "/xrpc/" + method + "?" + query.Encode() }

// badAnswer is the error for a 200 whose body makes no sense.
func badAnswer(op string, host Host, err error) *Error {
	return &Error{Op: op, Host: host, Reason: outcome.ReasonBadAnswer, Status: 200, Err: err}
}

// readRepos reads {"repos":[{"did":…},…],"cursor":…}.
func readRepos(body []byte) (ReposPage, error) {
	var page ReposPage
	listed := false
	err := record.ScanObject(body, func(s *record.Scanner, key string) (err error) {
		switch key {
		case "cursor":
			page.Cursor, err = readCursor(s)
			return err
		case "repos":
			if listed || s.Peek() != '[' {
				return s.Bad("repos is no array, or given twice")
			}
			listed = true
			return s.Array(func() error { return page.add(s) })
		default:
			err = s.Skip()
			return err
		}
	})
	if err == nil && !listed {
		err = errors.New("no repos in it")
	}
	return page, err
}

// add reads one entry of the listing.
func (p *ReposPage) add(s *record.Scanner) error {
	if len(p.DIDs)+p.Invalid == maxRelayRepos {
		return fmt.Errorf("more than %d repos", maxRelayRepos)
	}
	text, inactive := "", false
	if s.Peek() == '{' {
		if err := s.Object(func(key string) (err error) {
			switch key {
			case "did":
				text, err = s.Text()
			case "active":
				inactive = s.Peek() == 'f'
				err = s.Skip()
			default:
				err = s.Skip()
			}
			return err
		}); err != nil {
			return err
		}
	} else if err := s.Skip(); err != nil {
		return err
	}
	did, err := syntax.ParseDID(text)
	if err != nil {
		p.Invalid++
		return nil //nolint:nilerr // counted, and the others are good
	}
	p.DIDs = append(p.DIDs, did)
	if inactive {
		p.Inactive = append(p.Inactive, did)
	}
	return nil
}

// maxCursor bounds what goes back into a URL and into a row.
const maxCursor = 4 << 10

// readCursor reads a cursor: a string, or null for none.
func readCursor(s *record.Scanner) (string, error) {
	if c := s.Peek(); c != '"' && c != 'n' {
		return "", s.Bad("cursor is no string")
	}
	cursor, err := s.Text()
	if err == nil && len(cursor) > maxCursor {
		err = fmt.Errorf("cursor of %d bytes", len(cursor))
	}
	return cursor, err
}
