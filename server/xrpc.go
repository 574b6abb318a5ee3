package server

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/record"
	"appview/store"
)

// Bounds of a page in the lexicon of listRecords.
const (
	standardXRPCPage = 50
	maxXRPCPage      = 100
)

// xrpcGetRecord answers com.atproto.repo.getRecord from the index.
func (s *Server) xrpcGetRecord(r *http.Request) (reply, error) {
	params, err := parseXRPC(r, "com.atproto.repo.getRecord", "repo", "collection", "rkey", "cid")
	if err != nil {
		return reply{}, err
	}
	uri := record.URI{}
	if uri.DID, err = params.repo(); err != nil {
		return reply{}, err
	}
	if uri.Collection, err = params.collection(); err != nil {
		return reply{}, err
	}
	if uri.RKey, err = params.rkey(); err != nil {
		return reply{}, err
	}
	wanted, err := params.cid()
	if err != nil {
		return reply{}, err
	}
	rec, account, err := s.cfg.Store.ServedRecord(r.Context(), uri)
	switch {
	case account == "" && err == nil, errors.Is(err, store.ErrNotFound):
		return reply{}, noRecord(uri)
	case err != nil:
		return reply{}, err
	case account != store.AccountActive:
		return reply{}, notServed(uri.DID, account)
	case !wanted.matches(rec.Body.CID):
		return reply{}, noRecord(uri)
	}
	return s.tagged(r, s.recordTag(&rec), func(dst []byte) ([]byte, error) {
		dst, err := appendXRPC(dst, &rec)
		return append(dst, '\n'), err
	})
}

// xrpcListRecords answers com.atproto.repo.listRecords from the index.
func (s *Server) xrpcListRecords(r *http.Request) (reply, error) {
	params, err := parseXRPC(r, "com.atproto.repo.listRecords", "repo", "collection", "limit", "cursor", "reverse")
	if err != nil {
		return reply{}, err
	}
	at := store.RepoPage{}
	if at.DID, err = params.repo(); err != nil {
		return reply{}, err
	}
	if at.Collection, err = params.collection(); err != nil {
		return reply{}, err
	}
	limit, err := params.limit(standardXRPCPage, maxXRPCPage)
	if err != nil {
		return reply{}, err
	}
	if at.Ascending, err = params.boolean("reverse"); err != nil {
		return reply{}, err
	}
	// Any text is a place in the order of record keys.
	at.After = syntax.RecordKey(params.get("cursor"))
	at.Limit = limit
	page := s.newPage(limit, appendXRPC)
	account, more, err := s.cfg.Store.ServedPage(r.Context(), at, page.add)
	switch {
	case err != nil:
		return reply{}, err
	case account == "":
		return reply{}, badRequest("Could not find repo: %s", at.DID)
	case account != store.AccountActive:
		return reply{}, notServed(at.DID, account)
	}
	if more { // a cursor would cost the client another request
		page.cursor = page.last.String()
	}
	return page.reply(r, true), nil
}

// notServed tells why a repo's records are not served.
func notServed(did syntax.DID, account string) error {
	f := failure{status: http.StatusBadRequest}
	switch account {
	case store.AccountDeactivated:
		f.name, f.text = "RepoDeactivated", "Repo has been deactivated: "
	case store.AccountTakenDown:
		f.name, f.text = "RepoTakendown", "Repo has been taken down: "
	case store.AccountSuspended:
		f.name, f.text = "RepoSuspended", "Repo has been suspended: "
	default:
		f.name, f.text = "RepoNotFound", "Could not find repo: "
	}
	f.text += did.String()
	return f
}

// noRecord is the error of the lexicon of getRecord.
func noRecord(uri record.URI) error {
	return failure{status: http.StatusBadRequest, name: "RecordNotFound", text: fmt.Sprintf("Could not locate record: %s", uri)}
}
