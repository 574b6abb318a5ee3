package network

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/record"
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
	q := call{op: methodCollections, host: c.relay, target: methodCollections + "?" + query.Encode(), limit: maxEstimate}
	a, err := c.fetch(ctx, q)
	if err != nil {
		return nil, err
	}
	defer a.release()
	counts := map[syntax.NSID]int64{}
	read := false
	err = scan(a.body, func(s *scanner, key string) error {
		if key != "collections" {
			_, err := s.value()
			return err
		}
		if read || s.peek() != '{' {
			return s.bad("collections is no object, or given twice")
		}
		read = true
		return s.object(func(name string) error {
			n, err := s.count()
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
		return nil, badAnswer(q.op, a.host, err)
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
	q := call{op: methodHosts, host: c.relay, target: xrpc(methodHosts, query), limit: maxRelayBody}
	a, err := c.fetch(ctx, q)
	if err != nil {
		return HostsPage{}, err
	}
	defer a.release()
	var page HostsPage
	listed, n := false, 0
	err = scan(a.body, func(s *scanner, key string) (err error) {
		switch key {
		case "cursor":
			page.Cursor, err = s.cursor()
			return err
		case "hosts":
			if listed || s.peek() != '[' {
				return s.bad("hosts is no array, or given twice")
			}
			listed = true
			return s.array(func() error {
				if n++; n > maxRelayHosts {
					return fmt.Errorf("more than %d hosts", maxRelayHosts)
				}
				return c.addHost(s, &page)
			})
		default:
			_, err = s.value()
			return err
		}
	})
	if err == nil && !listed {
		err = errors.New("no hosts in it")
	}
	if err != nil {
		return HostsPage{}, badAnswer(q.op, a.host, err)
	}
	return page, nil
}

// addHost reads one host of the listing.
func (c *Client) addHost(s *scanner, page *HostsPage) error {
	if s.peek() != '{' {
		_, err := s.value()
		return err
	}
	var name, status string
	var accounts int64
	if err := s.object(func(key string) (err error) {
		switch key {
		case "hostname":
			name, err = s.text()
		case "status":
			status, err = s.text()
		case "accountCount":
			accounts, err = s.count()
		default:
			_, err = s.value()
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
		return schemeHTTP + "://" + name
	}
	return schemeHTTPS + "://" + name
}

// maxCounted is far more than there is of anything, and can be added up.
const maxCounted = 1 << 40

// count takes a number off that counts something. What is no number, or is
// negative, counts nothing.
func (s *scanner) count() (int64, error) {
	raw, err := s.value()
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(string(raw), 10, 64)
	if err != nil || n < 0 {
		return 0, nil //nolint:nilerr // it is only an estimate
	}
	return min(n, maxCounted), nil
}

// Rate is how many requests a second the host is asked at most, as things are:
// less than what is configured where it has lately refused some.
func (c *Client) Rate(host Host) float64 {
	g := c.gates.look(host)
	if g == nil {
		return c.newGate(host).base
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return min(g.base, g.backoff)
}
