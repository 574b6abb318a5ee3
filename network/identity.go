package network

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/identity"
	"github.com/bluesky-social/indigo/atproto/syntax"
)

const (
	maxDocument = 256 << 10 // bytes of a DID document

	servicePDS     = "#atproto_pds"
	serviceTypePDS = "AtprotoPersonalDataServer"
)

// Identity is what a DID document says that matters to reading the repo.
type Identity struct {
	DID syntax.DID
	PDS Host

	// parsed has the key that signs the repo's commits. It is read when it is wanted:
	// that takes as long as the rest of a look-up.
	parsed identity.Identity
}

// Key is what signs the repo's commits.
func (id Identity) Key() (atcrypto.PublicKey, error) { return id.parsed.PublicKey() }

// Lookup fetches and reads the DID document. Nothing is cached, and no handle is
// checked. Its reasons: ReasonBadDID, ReasonNotFound, ReasonTombstoned,
// ReasonNoPDS, ReasonBadEndpoint, ReasonRefusedAddress, ReasonTooLarge, and
// ReasonDIDLookup for everything that may pass.
func (c *Client) Lookup(ctx context.Context, did syntax.DID) (Identity, error) {
	if err := lookable(did); err != nil {
		return Identity{}, &Error{Op: opLookup, Reason: ReasonBadDID, Err: fmt.Errorf("%.200s: %w", did, err)}
	}
	// A document is small. Each request has its own bounds, long enough for a dead
	// host to show as one; this is for those that drip, or send on and on.
	t := c.cfg.Timing
	timed, cancel := context.WithTimeout(ctx, t.Connect+t.TLS+t.Header+t.BodyIdle)
	defer cancel()
	way := &documents{c: c, did: did}
	dir := identity.BaseDirectory{
		PLCURL: string(c.plc), SkipHandleVerification: true, UserAgent: c.cfg.UserAgent,
		HTTPClient: http.Client{Transport: way},
	}
	doc, err := dir.ResolveDID(timed, did)
	if err != nil {
		return Identity{}, way.failure(ctx, err)
	}
	return c.identity(did, doc)
}

// lookable tells why no document can be had for a DID, whoever is asked.
func lookable(did syntax.DID) error {
	switch did.Method() {
	case "plc":
		return nil
	case "web":
		handle, err := syntax.ParseHandle(did.Identifier())
		if err != nil {
			return err
		}
		if !handle.AllowedTLD() {
			return errors.New("not a public host name")
		}
		return nil
	default:
		return errors.New("unknown method")
	}
}

func (c *Client) identity(did syntax.DID, doc *identity.DIDDocument) (Identity, error) {
	id := Identity{DID: did, parsed: identity.ParseIdentity(doc)}
	endpoint := ""
	for _, s := range doc.Service {
		if s.Type == serviceTypePDS && (s.ID == servicePDS || s.ID == did.String()+servicePDS) {
			endpoint = s.ServiceEndpoint
			break
		}
	}
	var err error
	id.PDS, err = c.ParseHost(endpoint)
	if e, ok := errors.AsType[*Error](err); ok {
		return id, &Error{Op: opLookup, Reason: e.Reason, Err: fmt.Errorf("pds of %s: %w", did, e.Err)}
	}
	return id, nil
}

// documents is the one way that the directory library has to the network. It
// keeps the error of its own kind, which the library turns into text.
type documents struct {
	c   *Client
	did syntax.DID
	err error
}

// RoundTrip fetches a document through the gates and the guard, redirects included.
func (d *documents) RoundTrip(req *http.Request) (*http.Response, error) {
	// A DID may spell the name of its host in many ways, and the gate is one.
	host, err := d.c.ParseHost(req.URL.Scheme + "://" + req.URL.Host)
	if err != nil {
		d.err = err
		return nil, err
	}
	subject := d.did.String()
	if d.did.Method() == "web" {
		subject = string(host) // one document, that is: it must not pass for several to the breaker
	}
	a, err := d.c.fetch(req.Context(), call{
		op: opLookup, host: host, target: req.URL.RequestURI(),
		limit: maxDocument, subject: subject,
	})
	if err != nil {
		d.err = err
		return nil, err
	}
	defer a.release()
	if !shallow(a.body) {
		d.err = badAnswer(opLookup, a.host, errors.New("not json, or nested too deeply"))
		return nil, d.err
	}
	return &http.Response{
		Status: http.StatusText(http.StatusOK), StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: make(http.Header), Body: io.NopCloser(bytes.NewReader(a.body)), ContentLength: int64(len(a.body)), Request: req,
	}, nil
}

// failure classes what ended a look-up.
func (d *documents) failure(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s %s: %w", opLookup, d.did, ctx.Err())
	}
	if _, ok := errors.AsType[*Parked](d.err); ok {
		return d.err
	}
	e, ok := errors.AsType[*Error](d.err)
	if !ok {
		// The document came, and is none, or is another one's.
		return &Error{Op: opLookup, Reason: ReasonDIDLookup, Err: fmt.Errorf("%s: %w", d.did, err)}
	}
	plc := d.did.Method() == "plc"
	// A web page in the directory's place is not the directory's word; on the
	// account's own host it is the usual way to have no document.
	word := e.Reason != ReasonBadAnswer || !plc
	switch {
	case e.Status == http.StatusNotFound && word:
		e.Reason = ReasonNotFound
	case e.Status == http.StatusGone && word:
		e.Reason = ReasonTombstoned
	case e.Status == http.StatusBadRequest && word && plc:
		e.Reason = ReasonBadDID
	case e.Reason == ReasonTooLarge, e.Reason == ReasonRefusedAddress:
	default:
		if e.Err == nil {
			e.Err = errors.New(string(e.Reason))
		} else {
			e.Err = fmt.Errorf("%s: %w", e.Reason, e.Err)
		}
		e.Reason = ReasonDIDLookup
	}
	return e
}
