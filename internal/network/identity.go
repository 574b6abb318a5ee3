package network

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/network/outcome"
	"appview/internal/network/transport"
)

// Identity is what a DID document says that matters to reading the repo.
type Identity struct {
	DID syntax.DID
	PDS Host

	key signingKey
}

// Key is what signs the repo's commits.
func (id Identity) Key() (atcrypto.PublicKey, error) { return id.key.parse() }

// KeyText is the key for IdentityOf; empty if there is none that could be read.
func (id Identity) KeyText() string {
	if !id.key.found || len(id.key.text) > maxKeyText || !isSuite(id.key.suite) {
		return ""
	}
	return id.key.suite + " " + id.key.text
}

// IdentityOf is an identity that was looked up before, from what was noted of it.
func IdentityOf(did syntax.DID, pds Host, keyText string) (Identity, bool) {
	suite, text, ok := strings.Cut(keyText, " ")
	return Identity{DID: did, PDS: pds, key: signingKey{found: ok, suite: suite, text: text}}, ok
}

const opLookup = "look up did"

// ErrBadDocument says that a look-up was answered, and with no document of that DID.
var ErrBadDocument = errors.New("this is no document")

// Lookup fetches and reads the DID document. Nothing is cached, and no handle is
// checked. Its reasons: outcome.ReasonBadDID, outcome.ReasonNotFound, outcome.ReasonTombstoned,
// outcome.ReasonNoPDS, outcome.ReasonBadEndpoint, outcome.ReasonRefusedAddress, outcome.ReasonTooLarge, and
// outcome.ReasonDIDLookup for everything that may pass.
func (c *Client) Lookup(ctx context.Context, did syntax.DID) (Identity, error) {
	if err := checkDID(did); err != nil {
		return Identity{}, &Error{Op: opLookup, Reason: outcome.ReasonBadDID, Err: fmt.Errorf("%.200s: %w", did, err)}
	}
	// A document is small. Each request has its own bounds, long enough for a dead
	// host to show as one; this is for those that drip, or send on and on.
	t := c.cfg.Timing
	timed, cancel := context.WithTimeout(ctx, t.Connect+t.TLS+t.Header+t.BodyIdle)
	defer cancel()
	q, err := c.findDocument(did)
	if err != nil {
		return Identity{}, c.lookupFailure(ctx, did, err)
	}
	a, err := c.fetch(timed, q)
	if err != nil {
		return Identity{}, c.lookupFailure(ctx, did, err)
	}
	defer a.Release()
	doc, err := readDocument(a.Body, did)
	if err != nil {
		return Identity{}, &Error{Op: opLookup, Host: a.Host, Reason: outcome.ReasonDIDLookup, Err: fmt.Errorf("%w of %s: %w", ErrBadDocument, did, err)}
	}
	if q.Host == c.plc {
		c.samples.add(c.plc, questionDocument, did)
	}
	return c.identity(did, doc)
}

// findDocument is the request for the document of a DID that checkDID has passed.
func (c *Client) findDocument(did syntax.DID) (transport.Request, error) {
	if did.Method() == "plc" {
		return documentRequest(c.plc, did.String(), "/"+did.String()), nil
	}
	// A DID may spell the name of its host in many ways, and the gate is one. So is the
	// document: it must not pass for several to the breaker.
	host, err := c.ParseHost("https://" + did.Identifier())
	return documentRequest(host, string(host), "/.well-known/did.json"), err
}

func documentRequest(host Host, subject, target string) transport.Request {
	q := newServiceRequest(opLookup, host, subject, target, maxDocument)
	q.Document = true
	return q
}

// checkDID says why no document can be had for a DID, whoever is asked.
func checkDID(did syntax.DID) error {
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

func (c *Client) identity(did syntax.DID, doc didDocument) (Identity, error) {
	id := Identity{DID: did, key: doc.key}
	if doc.endpoint == "" && doc.odd != nil {
		return id, &Error{Op: opLookup, Reason: outcome.ReasonBadEndpoint, Err: fmt.Errorf("pds of %s: %w", did, doc.odd)}
	}
	var err error
	id.PDS, err = c.ParseHost(doc.endpoint)
	if e, ok := errors.AsType[*Error](err); ok {
		return id, &Error{Op: opLookup, Reason: e.Reason, Err: fmt.Errorf("pds of %s: %w", did, e.Err)}
	}
	return id, nil
}

// lookupFailure classes what ended a look-up.
func (c *Client) lookupFailure(ctx context.Context, did syntax.DID, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s %s: %w", opLookup, did, ctx.Err())
	}
	if _, ok := errors.AsType[*Parked](err); ok {
		return err
	}
	e, ok := errors.AsType[*Error](err)
	switch {
	case !ok: // it took too long
		e = &Error{Op: opLookup, Reason: outcome.ReasonDIDLookup, Err: fmt.Errorf("%s: %w", did, err)}
		if did.Method() == "plc" {
			e.Host = c.plc
		}
		return e
	case e.Reason == outcome.ReasonTooLarge, e.Reason == outcome.ReasonRefusedAddress:
		return e
	case did.Method() == "plc":
		return c.directoryFailure(ctx, did, e)
	case e.Status == http.StatusNotFound, e.Status == http.StatusGone:
		// The usual way to have no document any more, and nobody's word: a host that was
		// set up anew may answer so too.
		e.Reason, e.Inferred = outcome.ReasonNotFound, true
		return e
	}
	return failedLookup(e)
}

// directoryFailure classes a refusal of the directory. Only what it says of the DID is
// its word: what a proxy in front of it says would be said of every DID.
func (c *Client) directoryFailure(ctx context.Context, did syntax.DID, e *Error) error {
	words := cmp.Or(e.Message, e.Name)
	said := strings.Contains(words, did.String()) || strings.HasPrefix(transport.Letters(words), "didnot") || strings.HasPrefix(transport.Letters(words), "invaliddid")
	switch {
	case said && e.Status == http.StatusNotFound:
		e.Reason = outcome.ReasonNotFound
	case said && e.Status == http.StatusGone:
		e.Reason = outcome.ReasonTombstoned
	case said && e.Status == http.StatusBadRequest:
		e.Reason = outcome.ReasonBadDID
	default:
		err := c.inferNotFound(ctx, c.plc, did, e)
		if failed, ok := errors.AsType[*Error](err); ok && !failed.Inferred {
			return failedLookup(failed)
		}
		return cmp.Or(err, failedLookup(e))
	}
	return e
}

// failedLookup is e as a look-up that another attempt may mend.
func failedLookup(e *Error) error {
	if e.Err == nil {
		e.Err = errors.New(string(e.Reason))
	} else {
		e.Err = fmt.Errorf("%s: %w", e.Reason, e.Err)
	}
	e.Reason = outcome.ReasonDIDLookup
	return e
}
