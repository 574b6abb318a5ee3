package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"

	"appview/internal/network/outcome"
	"appview/internal/network/polite"
)

const (
	maxRedirects = 3

	opParseHost = "parse host"

	typeJSON = "application/json"
)

// Request is one question to one host.
type Request struct {
	polite.Question

	Target string         // path and query
	Accept string         // the media type that is wanted; empty: JSON
	Limit  int64          // bytes of the answer
	Budget *polite.Budget // of the answer's memory

	// Optional says that not every host has the method, so that a refusal which says
	// so, be it by a web page, is an answer.
	Optional bool
	// Document says that a member named "error" is part of the content, and no refusal.
	Document bool
	// Read takes the body as it comes, instead of in one piece. Its errors are
	// *outcome.BadContent, *polite.Parked, and those of what it was given.
	Read func(io.Reader, Memory) error

	hops int // redirects that led here
}

func (q Request) accept() string {
	if q.Accept == "" {
		return typeJSON
	}
	return q.Accept
}

// Answer is a 200, read to its end. Its grant of the budget is to be released.
type Answer struct {
	Host polite.Host // who gave it, after redirects
	Body []byte
	polite.Grant
}

// Fetch asks, follows redirects, and returns an answer with status 200, or an *Error, a
// *polite.Parked or the context's error. Every hop passes the rules for hosts, the gate and
// the guard anew.
func (c *Client) Fetch(ctx context.Context, q Request) (*Answer, error) {
	for {
		a, next, err := c.exchange(ctx, q)
		if err != nil || next == "" {
			return a, err
		}
		if q.hops == maxRedirects {
			return nil, &Error{Op: q.Op, Host: q.Host, Reason: outcome.ReasonBadAnswer, Err: fmt.Errorf("more than %d redirects", maxRedirects)}
		}
		if q, err = c.redirect(q, next); err != nil {
			return nil, err
		}
	}
}

// redirect is the request that a redirect turns q into.
func (c *Client) redirect(q Request, location string) (Request, error) {
	bad := func(reason outcome.Reason, err error) (Request, error) {
		return Request{}, &Error{Op: q.Op, Host: q.Host, Reason: reason, Err: fmt.Errorf("redirect to %.200q: %w", location, err)}
	}
	base, err := url.Parse(string(q.Host) + q.Target)
	if err != nil {
		return bad(outcome.ReasonBadAnswer, err)
	}
	to, err := base.Parse(location)
	if err != nil {
		return bad(outcome.ReasonBadAnswer, err)
	}
	if base.Scheme == schemeHTTPS && to.Scheme != schemeHTTPS {
		return bad(outcome.ReasonRefusedAddress, errors.New("leaves https"))
	}
	origin := url.URL{Scheme: to.Scheme, User: to.User, Host: to.Host}
	host, err := ParseHost(origin.String(), c.cfg.AllowPrivate)
	if e, ok := errors.AsType[*Error](err); ok {
		return bad(e.Reason, e.Err)
	}
	if host != q.Host && slices.Contains(c.cfg.Services, host) {
		// Every host could have its requests count to the rate at which these are asked.
		return bad(outcome.ReasonBadAnswer, errors.New("leads to the relay or the directory"))
	}
	q.Host, q.Target, q.Circuit, q.hops = host, to.RequestURI(), polite.CircuitRedirected, q.hops+1
	return q, nil
}

func isRedirect(status int) bool {
	switch status {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return true
	default:
		return false
	}
}
