package zoo_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/sandbox"
)

const (
	listRecords     = "com.atproto.repo.listRecords"
	getRepo         = "com.atproto.sync.getRepo"
	getRepoStatus   = "com.atproto.sync.getRepoStatus"
	getLatestCommit = "com.atproto.sync.getLatestCommit"
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

func (c *client) try(ctx context.Context, address string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	return io.ReadAll(resp.Body)
}

func (c *client) get(address string) []byte {
	c.tb.Helper()
	body, err := c.try(c.tb.Context(), address)
	if err != nil {
		c.tb.Fatalf("get %s: %v", address, err)
	}
	return body
}

func xrpc(base, method string, params ...string) string {
	q := url.Values{}
	for i := 0; i+1 < len(params); i += 2 {
		q.Set(params[i], params[i+1])
	}
	return base + "/xrpc/" + method + "?" + q.Encode()
}

type listed struct {
	URI   string          `json:"uri"`
	CID   string          `json:"cid"`
	Value json.RawMessage `json:"value"`
}

func account(tb testing.TB, w *sandbox.World, did syntax.DID) sandbox.Repo {
	tb.Helper()
	r, err := w.Repo(did)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}
