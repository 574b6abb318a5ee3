package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/record"
	"appview/store"
)

// Bounds of a page in the lexicon of listRecords.
const (
	standardXRPCPage = 50
	maxXRPCPage      = 100
)

// xrpcRecord is a record as the lexicons of getRecord and listRecords have it.
type xrpcRecord struct {
	URI   string          `json:"uri"`
	CID   string          `json:"cid"`
	Value json.RawMessage `json:"value"`
}

type xrpcPage struct {
	Cursor  string       `json:"cursor,omitempty"`
	Records []xrpcRecord `json:"records"`
}

func newXRPCRecord(rec store.Record) (xrpcRecord, error) {
	value, err := appendValue(nil, rec)
	return xrpcRecord{URI: rec.URI().String(), CID: rec.Body.CID.String(), Value: value}, err
}

// xrpcGetRecord answers com.atproto.repo.getRecord from the index.
func (s *Server) xrpcGetRecord(r *http.Request) (reply, error) {
	params, err := xrpcParams(r, "repo", "collection", "rkey")
	if err != nil {
		return reply{}, err
	}
	uri := record.URI{}
	if uri.DID, err = xrpcRepo(params); err != nil {
		return reply{}, err
	}
	if uri.Collection, err = parseCollection(params.Get("collection")); err != nil {
		return reply{}, err
	}
	if uri.RKey, err = syntax.ParseRecordKey(params.Get("rkey")); err != nil {
		return reply{}, badRequest("rkey %s is no valid record key", quoted(params.Get("rkey")))
	}
	wanted := params.Get("cid")
	if _, err := syntax.ParseCID(wanted); err != nil && params.Has("cid") {
		return reply{}, badRequest("cid %s is no valid CID", quoted(wanted))
	}
	err = s.servedRepo(r.Context(), uri.DID)
	if errors.Is(err, store.ErrNotFound) {
		return reply{}, noRecord(uri)
	}
	if err != nil {
		return reply{}, err
	}
	rec, err := s.cfg.Store.Record(r.Context(), uri)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return reply{}, noRecord(uri)
	case err != nil:
		return reply{}, err
	case wanted != "" && wanted != rec.Body.CID.String():
		return reply{}, noRecord(uri)
	}
	body, err := newXRPCRecord(rec)
	return ok(body), err
}

// xrpcListRecords answers com.atproto.repo.listRecords from the index.
func (s *Server) xrpcListRecords(r *http.Request) (reply, error) {
	params, err := xrpcParams(r, "repo", "collection")
	if err != nil {
		return reply{}, err
	}
	page := store.RepoPage{}
	if page.DID, err = xrpcRepo(params); err != nil {
		return reply{}, err
	}
	if page.Collection, err = parseCollection(params.Get("collection")); err != nil {
		return reply{}, err
	}
	limit, err := limitOf(params.Get("limit"), standardXRPCPage, maxXRPCPage)
	if err != nil {
		return reply{}, err
	}
	if cursor := params.Get("cursor"); cursor != "" {
		if page.After, err = syntax.ParseRecordKey(cursor); err != nil {
			return reply{}, badRequest("cursor %s is no record key", quoted(cursor))
		}
	}
	switch reverse := params.Get("reverse"); reverse {
	case "", "false":
	case "true":
		page.Ascending = true
	default:
		return reply{}, badRequest("reverse must be true or false, it is %s", quoted(reverse))
	}
	err = s.servedRepo(r.Context(), page.DID)
	if errors.Is(err, store.ErrNotFound) {
		return reply{}, badRequest("Could not find repo: %s", page.DID)
	}
	if err != nil {
		return reply{}, err
	}
	body, err := s.xrpcPage(r.Context(), page, limit)
	return ok(body), err
}

// xrpcPage reads a page. It has a cursor only if something follows.
func (s *Server) xrpcPage(ctx context.Context, page store.RepoPage, limit int) (xrpcPage, error) {
	body, size := xrpcPage{Records: []xrpcRecord{}}, 0
	for {
		left := limit - len(body.Records)
		page.Limit = min(readStep, left) + 1 // one more tells whether something follows
		list, err := s.cfg.Store.RepoRecords(ctx, page)
		if err != nil {
			return body, err
		}
		more := len(list) == page.Limit
		for _, rec := range list[:min(len(list), page.Limit-1)] {
			one, err := newXRPCRecord(rec)
			if err != nil {
				return body, err
			}
			body.Records = append(body.Records, one)
			size += len(one.Value)
			page.After = rec.RKey
		}
		switch {
		case !more:
			return body, nil
		case len(body.Records) == limit || size >= pageBytes:
			body.Cursor = page.After.String()
			return body, nil
		}
	}
}

// xrpcParams reads the parameters of a query. Unknown ones are ignored, as other
// XRPC servers do.
func xrpcParams(r *http.Request, required ...string) (url.Values, error) {
	params, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, badRequest("the query cannot be read: %s", err)
	}
	for _, name := range required {
		if params.Get(name) == "" {
			return nil, badRequest("Params must have the property %q", name)
		}
	}
	for name, values := range params {
		if len(values) > 1 && slices.Contains([]string{"repo", "collection", "rkey", "cid", "limit", "cursor", "reverse"}, name) {
			return nil, badRequest("%s is given twice", name)
		}
	}
	return params, nil
}

// xrpcRepo is the repo that a query names.
func xrpcRepo(params url.Values) (syntax.DID, error) {
	text := params.Get("repo")
	if _, err := syntax.ParseHandle(text); err == nil {
		return "", badRequest("repo must be a DID, not a handle: this index does not look handles up")
	}
	did, err := syntax.ParseDID(text)
	if err != nil {
		return "", badRequest("repo %s is no valid DID", quoted(text))
	}
	return did, nil
}

// servedRepo tells why a repo's records are not served: store.ErrNotFound when the
// index never held any, an answer when the account is not active.
func (s *Server) servedRepo(ctx context.Context, did syntax.DID) error {
	repo, err := s.cfg.Store.Repo(ctx, did)
	if err != nil || repo.Active() {
		return err
	}
	switch repo.Account {
	case store.AccountDeactivated:
		return failure{status: http.StatusBadRequest, name: "RepoDeactivated", text: fmt.Sprintf("Repo has been deactivated: %s", did)}
	case store.AccountTakenDown:
		return failure{status: http.StatusBadRequest, name: "RepoTakendown", text: fmt.Sprintf("Repo has been taken down: %s", did)}
	case store.AccountSuspended:
		return failure{status: http.StatusBadRequest, name: "RepoSuspended", text: fmt.Sprintf("Repo has been suspended: %s", did)}
	default:
		return failure{status: http.StatusBadRequest, name: "RepoNotFound", text: fmt.Sprintf("Could not find repo: %s", did)}
	}
}

// noRecord is the error of the lexicon of getRecord.
func noRecord(uri record.URI) error {
	return failure{status: http.StatusBadRequest, name: "RecordNotFound", text: fmt.Sprintf("Could not locate record: %s", uri)}
}
