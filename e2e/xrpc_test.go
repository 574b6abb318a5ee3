//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

const (
	requestLimit = 30 * time.Second
	bodyLimit    = 256 << 20
)

// endpoint is the origin of a server, as "http://localhost:2583".
type endpoint string

// statusError is an answer that is not 2xx.
type statusError struct {
	Status  int    `json:"-"`
	Name    string `json:"error"`
	Message string `json:"message"`
	body    string
}

func (e *statusError) Error() string { return fmt.Sprintf("status %d: %s", e.Status, e.body) }

// get asks for path with the query and decodes the JSON answer into out.
func (e endpoint) get(ctx context.Context, path string, query url.Values, auth string, out any) error {
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	return e.call(ctx, http.MethodGet, path, auth, "", nil, out)
}

// post sends in as JSON and decodes the JSON answer into out. A nil in sends no
// body, a nil out reads none.
func (e endpoint) post(ctx context.Context, path, auth string, in, out any) error {
	if in == nil {
		return e.call(ctx, http.MethodPost, path, auth, "", nil, out)
	}
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("encode request for %s: %w", path, err)
	}
	return e.call(ctx, http.MethodPost, path, auth, "application/json", body, out)
}

func (e endpoint) call(ctx context.Context, method, path, auth, contentType string, in []byte, out any) error {
	body, err := e.raw(ctx, method, path, auth, contentType, in)
	if err != nil {
		return err
	}
	if out == nil {
		return nil
	}
	if err := decode(body, out); err != nil {
		return fmt.Errorf("%s %s%s: %w", method, e, path, err)
	}
	return nil
}

// raw sends one request and returns the body of its answer.
func (e endpoint) raw(ctx context.Context, method, path, auth, contentType string, in []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, requestLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, string(e)+path, bytes.NewReader(in))
	if err != nil {
		return nil, fmt.Errorf("%s %s%s: %w", method, e, path, err)
	}
	if auth != "" {
		req.Header.Set("Authorization", auth)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, err // names method and URL
	}
	defer res.Body.Close() //nolint:errcheck // read to its end below
	body, err := io.ReadAll(io.LimitReader(res.Body, bodyLimit))
	if err != nil {
		return nil, fmt.Errorf("%s %s%s: read answer: %w", method, e, path, err)
	}
	if res.StatusCode/100 != 2 {
		failed := &statusError{Status: res.StatusCode, body: string(body[:min(len(body), 500)])}
		_ = json.Unmarshal(body, failed) // names are there or not
		return nil, fmt.Errorf("%s %s%s: %w", method, e, path, failed)
	}
	return body, nil
}

// client follows no proxy: everything is on loopback.
var client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16, IdleConnTimeout: 10 * time.Second}}

// decode keeps numbers as they were written, so that none can differ unseen.
func decode(b []byte, out any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	return d.Decode(out)
}

func bearer(token string) string { return "Bearer " + token }
