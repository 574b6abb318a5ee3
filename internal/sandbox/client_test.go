package sandbox_test

import (
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/sandbox"
)

const (
	listRecords           = "com.atproto.repo.listRecords"
	getRecord             = "com.atproto.repo.getRecord"
	describeRepo          = "com.atproto.repo.describeRepo"
	getRepo               = "com.atproto.sync.getRepo"
	getRepoStatus         = "com.atproto.sync.getRepoStatus"
	getLatestCommit       = "com.atproto.sync.getLatestCommit"
	listRepos             = "com.atproto.sync.listRepos"
	listReposByCollection = "com.atproto.sync.listReposByCollection"
)

// client asks as any program would: over HTTP.
type client struct {
	tb   testing.TB
	http *http.Client
}

func newClient(tb testing.TB) *client {
	tb.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: 8}
	tb.Cleanup(transport.CloseIdleConnections)
	return &client{tb, &http.Client{
		Transport: transport, Timeout: 20 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

type result struct {
	status int
	header http.Header
	body   []byte
}

func (c *client) try(ctx context.Context, address string) (result, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return result{}, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return result{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	return result{resp.StatusCode, resp.Header, body}, err
}

func (c *client) get(address string) result {
	c.tb.Helper()
	r, err := c.try(c.tb.Context(), address)
	if err != nil {
		c.tb.Fatalf("get %s: %v", address, err)
	}
	return r
}

func xrpc(base, method string, params ...string) string {
	q := url.Values{}
	for i := 0; i+1 < len(params); i += 2 {
		q.Set(params[i], params[i+1])
	}
	return base + "/xrpc/" + method + "?" + q.Encode()
}

// into asks and decodes a 200.
func (c *client) into(out any, address string) {
	c.tb.Helper()
	r := c.get(address)
	if r.status != http.StatusOK {
		c.tb.Fatalf("get %s: %d %s", address, r.status, r.body)
	}
	if err := json.Unmarshal(r.body, out); err != nil {
		c.tb.Fatalf("decode %s: %v\n%s", address, err, r.body)
	}
}

func (c *client) wantError(address string, status int, name, message string) {
	c.tb.Helper()
	r := c.get(address)
	var body struct{ Error, Message string }
	if err := json.Unmarshal(r.body, &body); err != nil {
		c.tb.Fatalf("get %s: %d, not an XRPC error: %s", address, r.status, r.body)
	}
	if r.status != status || body.Error != name || body.Message != message {
		c.tb.Errorf("get %s:\n got %d %s %q\nwant %d %s %q", address, r.status, body.Error, body.Message, status, name, message)
	}
}

type listed struct {
	URI   string          `json:"uri"`
	CID   string          `json:"cid"`
	Value json.RawMessage `json:"value"`
}

// list reads a collection of a repo to its end.
func (c *client) list(host string, did syntax.DID, collection syntax.NSID, limit int, reverse bool) []listed {
	c.tb.Helper()
	var all []listed
	cursor := ""
	for {
		var page struct {
			Records []listed
			Cursor  string
		}
		c.into(&page, xrpc(host, listRecords, "repo", did.String(), "collection", collection.String(),
			"limit", strconv.Itoa(limit), "reverse", strconv.FormatBool(reverse), "cursor", cursor))
		if len(page.Records) > limit {
			c.tb.Fatalf("a page of %d records was asked for %d", len(page.Records), limit)
		}
		if (page.Cursor != "") != (len(page.Records) > 0) {
			c.tb.Fatalf("page of %d records has cursor %q", len(page.Records), page.Cursor)
		}
		if all = append(all, page.Records...); page.Cursor == "" {
			return all
		}
		cursor = page.Cursor
	}
}

// readAll reads every record of every active account, as the network shows it.
func (c *client) readAll(w *sandbox.World) map[string]listed {
	c.tb.Helper()
	all := make(map[string]listed)
	for _, r := range w.Repos() {
		if r.Status == sandbox.StatusActive {
			maps.Copy(all, c.readRepo(r.Host, r.DID))
		}
	}
	return all
}

func (c *client) readRepo(host string, did syntax.DID) map[string]listed {
	c.tb.Helper()
	var described struct{ Collections []syntax.NSID }
	c.into(&described, xrpc(host, describeRepo, "repo", did.String()))
	all := make(map[string]listed)
	for _, collection := range described.Collections {
		for _, r := range c.list(host, did, collection, 100, false) {
			all[r.URI] = r
		}
	}
	return all
}

// wantTruth compares what was read with the truth.
func wantTruth(tb testing.TB, got map[string]listed, want map[string]sandbox.Record) {
	tb.Helper()
	if len(got) != len(want) {
		tb.Errorf("read %d records, the truth has %d", len(got), len(want))
	}
	for uri, truth := range want {
		r, ok := got[uri]
		switch {
		case !ok:
			tb.Errorf("%s is missing", uri)
		case r.CID != truth.CID || string(r.Value) != string(truth.Value):
			tb.Errorf("%s: got %s %s\nwant %s %s", uri, r.CID, r.Value, truth.CID, truth.Value)
		}
	}
}
