package cmd

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"appview/cmd/service"
	"appview/cmd/term"
	"appview/internal/api"
	"appview/internal/datadir"
)

const (
	exampleURL = "http://" + service.DefaultListen
	// requestTimeout is for everything but an export.
	requestTimeout = 30 * time.Second
	// maxAnswer bounds an answer that is read as a whole.
	maxAnswer = 64 << 20
)

// clientOptions say which server to talk to.
type clientOptions struct {
	url     string
	key     string
	dataDir string
	json    bool // print what the server answered
}

// addClientFlags gives cmd and the commands below it the flags of a client.
func addClientFlags(cmd *cobra.Command, o *clientOptions) {
	f := cmd.PersistentFlags()
	f.StringVar(&o.url, "url", "", "server to talk to, such as "+exampleURL+" or unix:/PATH (default: the one that runs on --data-dir, over its socket)")
	f.StringVar(&o.key, "key", "", "key to use (default: the admin key of --data-dir); the list of processes shows a flag to everybody, not a variable")
	f.StringVar(&o.dataDir, "data-dir", defaultDataDir, "data directory of a server on this machine")
	f.BoolVar(&o.json, "json", false, "print the server's JSON")
	for _, name := range []string{"url", "key", "data-dir"} {
		configurable(cmd, name)
	}
}

// client asks one server.
type client struct {
	http      *http.Client
	transport *http.Transport // of http
	timeout   time.Duration   // of a call, 0: none
	base      string          // what begins each URL
	at        string          // where the server is, for people
	key       string
	from      string // where the key was found, for errors
	flags     string // with which another command finds the same server, but not the key

	idempotencyKey string // of the requests; empty: they have none
}

// newClient finds the server, and its key. A key that the user has given goes to the URL
// that the user has given, or without one over the socket of the data directory, and
// nowhere else.
func (p *program) newClient(o clientOptions) (*client, error) {
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, ResponseHeaderTimeout: requestTimeout, ForceAttemptHTTP2: true}
	c := &client{timeout: requestTimeout, transport: transport, flags: p.sameServer(o), http: &http.Client{
		Transport: transport,
		// A redirect could lead the key astray.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	isLocal, err := c.locate(o)
	if err != nil {
		return nil, err
	}
	// To compress takes longer than to send within one machine.
	transport.DisableCompression = isLocal
	return c, p.findKey(c, o, isLocal)
}

// locate finds out where the server is, and reports whether that is on this machine.
func (c *client) locate(o clientOptions) (isLocal bool, err error) {
	switch path, isSocket := strings.CutPrefix(o.url, service.UnixScheme); {
	case o.url == "":
		c.useSocket(service.SocketOf(o.dataDir), func(ctx context.Context) (net.Conn, error) { return service.DialLocal(ctx, o.dataDir) })
		return true, nil
	case isSocket && path != "":
		c.useSocket(o.url, func(ctx context.Context) (net.Conn, error) { return new(net.Dialer).DialContext(ctx, "unix", path) })
		return true, nil
	}
	u, err := url.Parse(o.url)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return false, service.Usagef("--url %q is no URL of a server, such as %s", o.url, exampleURL)
	}
	c.base = strings.TrimRight(o.url, "/")
	c.at = c.base
	return isLoopback(u.Hostname()), nil
}

// useSocket has the client talk over a socket, shown as at.
func (c *client) useSocket(at string, dial func(context.Context) (net.Conn, error)) {
	c.base, c.at, c.transport.Proxy = "http://localhost", at, nil
	c.transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }
}

// findKey finds the key to show to the server. That of the data directory goes to a
// server on this machine only.
func (p *program) findKey(c *client, o clientOptions, isLocal bool) (err error) {
	if c.key, c.from = o.key, "--key"; c.key != "" {
		return nil
	}
	if !isLocal {
		return service.Usagef("--url names another machine: give its key in %s or with --key", envName("key"))
	}
	if c.key, err = p.secret(envAdminKey); err != nil || c.key != "" {
		c.from = envAdminKey
		return err
	}
	c.from = filepath.Join(o.dataDir, service.KeyFile)
	dir, err := datadir.Open(o.dataDir)
	if err == nil {
		c.key, err = service.ReadKey(dir)
		err = errors.Join(err, dir.Close())
	}
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("no key: there is no %s: start a server on this --data-dir first, or give a key with --key", c.from)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%w: only the user that runs the server may: be that user, or name the server with --url and give a key with --key", err)
	}
	return err
}

// sameServer are the flags with which another command finds the server of this one:
// those that neither the environment nor nothing at all would lead to. A key is not
// among them: it is not to be shown.
func (p *program) sameServer(o clientOptions) (flags string) {
	for _, f := range []struct{ name, value, standard string }{{"data-dir", o.dataDir, defaultDataDir}, {"url", o.url, ""}} {
		if f.value != cmp.Or(p.env(envName(f.name)), f.standard) {
			flags += " --" + f.name + " " + shellWord(f.value)
		}
	}
	return flags
}

// again is the command line that watches a job of the same server.
func (c *client) again(id string) string {
	return "appview backfill watch " + term.Plain(shellWord(id)) + c.flags
}

// patient is the client without its timeouts, for what takes as long as there is
// much to do.
func (c *client) patient() *client {
	p, hc := *c, *c.http
	p.timeout, p.transport = 0, c.transport.Clone()
	p.transport.ResponseHeaderTimeout = 0
	hc.Transport = p.transport
	p.http = &hc
	return &p
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// answerError is what a server said instead of what was asked for.
type answerError struct {
	status int
	text   string
}

func (e answerError) Error() string { return e.text }

// send makes a request and returns the response of a success.
func (c *client) send(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", c.at, err)
	}
	req.Header.Set("Authorization", "Bearer "+c.key)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.idempotencyKey != "" {
		req.Header.Set(api.IdempotencyKey, c.idempotencyKey)
	}
	res, err := c.http.Do(req)
	if err != nil {
		if errors.Is(err, context.Canceled) {
			return nil, fmt.Errorf("interrupted while %s was asked: %w", c.at, ctx.Err())
		}
		if local, is := errors.AsType[service.LocalError](err); is {
			return nil, unreachableError{local}
		}
		var op *net.OpError
		if errors.As(err, &op) && op.Op == "dial" {
			return nil, unreachableError{fmt.Errorf("no server at %s: start one with appview serve: %w", c.at, op.Err)}
		}
		var late net.Error
		if errors.As(err, &late) && late.Timeout() {
			return nil, fmt.Errorf("%s accepts connections but does not answer: is that the address of appview?", c.at)
		}
		return nil, asLost(fmt.Errorf("ask %s: %w: is that the address of appview?", c.at, errors.Unwrap(err)))
	}
	if res.StatusCode/100 == 2 {
		return res, nil
	}
	defer func() { _ = res.Body.Close() }() // nothing follows it
	return nil, c.refused(res)
}

// refused reads an error answer, of the admin API or of XRPC.
func (c *client) refused(res *http.Response) error {
	var body struct{ Error, Message string }
	data, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err == nil {
		err = json.Unmarshal(data, &body)
	}
	text := body.Error
	switch {
	case err != nil || text == "":
		text = fmt.Sprintf("%s answered %s: is it appview?", c.at, res.Status)
	case body.Message != "":
		text += ": " + body.Message
	}
	if res.StatusCode == http.StatusUnauthorized {
		text, _, _ = strings.Cut(text, ": send the header") // which this command did
		text += " (the key came from " + c.from + ")"
	}
	return answerError{status: res.StatusCode, text: text}
}

// call makes a request and returns the JSON that it is answered with.
func (c *client) call(ctx context.Context, method, path string, body io.Reader) (json.RawMessage, error) {
	if c.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.timeout)
		defer cancel()
	}
	res, err := c.send(ctx, method, path, body)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }() // it was read to its end
	data, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, asLost(fmt.Errorf("read the answer of %s: %w", c.at, err))
	case len(data) > maxAnswer:
		return nil, fmt.Errorf("the answer of %s is longer than %d MiB: ask for less with --limit", c.at, maxAnswer>>20)
	}
	return data, nil
}

// get asks for path and decodes the answer. It also returns it as it came.
func (c *client) get(ctx context.Context, path string, into any) (json.RawMessage, error) {
	data, err := c.call(ctx, http.MethodGet, path, nil)
	if err != nil {
		return nil, err
	}
	return data, decodeAnswer(data, into)
}

func decodeAnswer(data []byte, into any) error {
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("read the server's answer: %w: is it appview?", err)
	}
	return nil
}

// withQuery appends parameters to a path, leaving out empty ones.
func withQuery(path string, pairs ...string) string {
	q := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	if len(q) == 0 {
		return path
	}
	return path + "?" + q.Encode()
}
