package network

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/record"
)

const (
	methodCollections = "/v1/listCollections" // of the collection directory behind a relay; no XRPC
	methodHosts       = "com.atproto.sync.listHosts"

	hostsLimit    = 1000      // hosts asked for on one page
	maxRelayHosts = 10_000    // the most that are taken from one page
	maxEstimate   = 256 << 10 // bytes of what listCollections says of a few collections
)

// CollectionCounts is of about how many repos the relay has seen records of each
// collection; what it has never seen is not in it. It counts repos that have
// nothing of it any more. Not every relay tells.
func (c *Client) CollectionCounts(ctx context.Context, collections []syntax.NSID) (map[syntax.NSID]int64, error) {
	query := url.Values{}
	for _, n := range collections {
		query.Add("c", n.String())
	}
	q := newServiceRequest(methodCollections, c.relay, "", methodCollections+"?"+query.Encode(), maxEstimate)
	a, err := c.fetch(ctx, q)
	if err != nil {
		return nil, err
	}
	defer a.Release()
	counts := map[syntax.NSID]int64{}
	read := false
	err = record.ScanObject(a.Body, func(s *record.Scanner, key string) error {
		if key != "collections" {
			return s.Skip()
		}
		if read || s.Peek() != '{' {
			return s.Bad("collections is no object, or given twice")
		}
		read = true
		return s.Object(func(name string) error {
			n, err := readCount(s)
			if err != nil {
				return err
			}
			if nsid, err := record.ParseCollection(name); err == nil {
				counts[nsid] = n
			}
			return nil
		})
	})
	if err == nil && !read {
		err = errors.New("no collections in it")
	}
	if err != nil {
		return nil, badAnswer(q.Op, a.Host, err)
	}
	return counts, nil
}

// HostAccounts is how many accounts the relay has seen on a host: at least that
// many there are.
type HostAccounts struct {
	Host     Host
	Accounts int64
}

// HostsPage is one page of the hosts that a relay reads from. An empty cursor ends
// the listing.
type HostsPage struct {
	Hosts  []HostAccounts // without those that may not be asked, or that the relay has banned
	Cursor string
}

// Hosts lists the hosts that the relay reads from.
func (c *Client) Hosts(ctx context.Context, cursor string) (HostsPage, error) {
	query := url.Values{"limit": {strconv.Itoa(hostsLimit)}}
	if cursor != "" {
		query.Set("cursor", cursor)
	}
	q := newServiceRequest(methodHosts, c.relay, "", xrpc(methodHosts, query), maxRelayBody)
	a, err := c.fetch(ctx, q)
	if err != nil {
		return HostsPage{}, err
	}
	defer a.Release()
	var page HostsPage
	listed, n := false, 0
	err = record.ScanObject(a.Body, func(s *record.Scanner, key string) (err error) {
		switch key {
		case "cursor":
			page.Cursor, err = readCursor(s)
			return err
		case "hosts":
			if listed || s.Peek() != '[' {
				return s.Bad("hosts is no array, or given twice")
			}
			listed = true
			return s.Array(func() error {
				if n++; n > maxRelayHosts {
					return fmt.Errorf("more than %d hosts", maxRelayHosts)
				}
				return c.addHost(s, &page)
			})
		default:
			err = s.Skip()
			return err
		}
	})
	if err == nil && !listed {
		err = errors.New("no hosts in it")
	}
	if err != nil {
		return HostsPage{}, badAnswer(q.Op, a.Host, err)
	}
	return page, nil
}

// addHost reads one host of the listing.
func (c *Client) addHost(s *record.Scanner, page *HostsPage) error {
	if s.Peek() != '{' {
		return s.Skip()
	}
	var name, status string
	var accounts int64
	if err := s.Object(func(key string) (err error) {
		switch key {
		case "hostname":
			name, err = s.Text()
		case "status":
			status, err = s.Text()
		case "accountCount":
			accounts, err = readCount(s)
		default:
			err = s.Skip()
		}
		return err
	}); err != nil {
		return err
	}
	host, err := c.ParseHost(c.originOf(name))
	if err == nil && status != "banned" && accounts > 0 {
		page.Hosts = append(page.Hosts, HostAccounts{Host: host, Accounts: accounts})
	}
	return nil
}

// originOf is where the host of a name is asked. Relays name hosts without a
// scheme; only in private networks one with a port speaks plain http.
func (c *Client) originOf(name string) string {
	if c.cfg.AllowPrivate && strings.Contains(name, ":") {
		return "http://" + name
	}
	return "https://" + name
}

// maxCounted is far more than there is of anything, and can be added up.
const maxCounted = 1 << 40

// readCount reads a number that counts something. What is no number, or is
// negative, counts nothing.
func readCount(s *record.Scanner) (int64, error) {
	raw, err := s.Value()
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(string(raw), 10, 64)
	if err != nil || n < 0 {
		return 0, nil //nolint:nilerr // it is only an estimate
	}
	return min(n, maxCounted), nil
}
