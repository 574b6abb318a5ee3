package reads

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/record"
	"appview/server/answer"
	"appview/store"
	"appview/store/index"
)

// Bounds of a page in the lexicon of listRecords.
const (
	standardXRPCPage = 50
	maxXRPCPage      = 100
)

// xrpcGetRecord answers com.atproto.repo.getRecord from the index.
func (rd *Reads) xrpcGetRecord(r *http.Request) (answer.Reply, error) {
	params, err := parseXRPC(r, "com.atproto.repo.getRecord", "repo", "collection", "rkey", "cid")
	if err != nil {
		return answer.Reply{}, err
	}
	uri := record.URI{}
	if uri.DID, err = params.repo(); err != nil {
		return answer.Reply{}, err
	}
	if uri.Collection, err = params.collection(); err != nil {
		return answer.Reply{}, err
	}
	if uri.RKey, err = params.rkey(); err != nil {
		return answer.Reply{}, err
	}
	wanted, err := params.cid()
	if err != nil {
		return answer.Reply{}, err
	}
	rec, account, err := rd.store.Index.ServedRecord(r.Context(), uri)
	switch {
	case account == "" && err == nil, errors.Is(err, store.ErrNotFound):
		return answer.Reply{}, noRecord(uri)
	case err != nil:
		return answer.Reply{}, err
	case account != index.AccountActive:
		return answer.Reply{}, notServed(uri.DID, account)
	case !wanted.matches(rec.Body.CID):
		return answer.Reply{}, noRecord(uri)
	}
	return rd.out.Tagged(r, rd.recordTag(&rec), func(dst []byte) ([]byte, error) {
		dst, err := appendXRPC(dst, &rec)
		return append(dst, '\n'), err
	})
}

// xrpcListRecords answers com.atproto.repo.listRecords from the index.
func (rd *Reads) xrpcListRecords(r *http.Request, page *recordPage) error {
	params, err := parseXRPC(r, "com.atproto.repo.listRecords", "repo", "collection", "limit", "cursor", "reverse")
	if err != nil {
		return err
	}
	at := index.RepoPage{}
	if at.DID, err = params.repo(); err != nil {
		return err
	}
	if at.Collection, err = params.collection(); err != nil {
		return err
	}
	limit, err := params.limit(standardXRPCPage, maxXRPCPage)
	if err != nil {
		return err
	}
	if at.Ascending, err = params.boolean("reverse"); err != nil {
		return err
	}
	// Any text is a place in the order of record keys.
	at.After = syntax.RecordKey(params.get("cursor"))
	page.print(limit, appendXRPC)
	return rd.servedRecords(r.Context(), at, page)
}

// servedRecords lists one repo as its account's status allows, which is looked at with
// every step.
func (rd *Reads) servedRecords(ctx context.Context, at index.RepoPage, page *recordPage) error {
	for {
		at.Limit = page.step()
		account, more, err := rd.store.Index.ServedPage(ctx, at, page.add)
		switch {
		case err != nil:
			return err
		case account == "":
			return answer.BadRequest("Could not find repo: %s", at.DID)
		case account != index.AccountActive:
			return notServed(at.DID, account)
		case !more: // a cursor would cost the client another request
			return nil
		case page.full():
			page.cursor = page.last.String()
			return nil
		}
		if err := page.flush(); err != nil {
			return err
		}
		at.After = page.last
	}
}

// notServed tells why a repo's records are not served.
func notServed(did syntax.DID, account string) error {
	f := answer.Failure{Status: http.StatusBadRequest}
	switch account {
	case index.AccountDeactivated:
		f.Name, f.Text = "RepoDeactivated", "Repo has been deactivated: "
	case index.AccountTakenDown:
		f.Name, f.Text = "RepoTakendown", "Repo has been taken down: "
	case index.AccountSuspended:
		f.Name, f.Text = "RepoSuspended", "Repo has been suspended: "
	default:
		f.Name, f.Text = "RepoNotFound", "Could not find repo: "
	}
	f.Text += did.String()
	return f
}

// noRecord is the error of the lexicon of getRecord.
func noRecord(uri record.URI) error {
	return answer.Failure{Status: http.StatusBadRequest, Name: "RecordNotFound", Text: fmt.Sprintf("Could not locate record: %s", uri)}
}
