package network

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

const methodGetRecord = "com.atproto.repo.getRecord"

// HasRecord asks a host whether a repo holds a record. It reports false only if the host
// says of this record that it is not there: any other refusal is an error.
func (c *Client) HasRecord(ctx context.Context, host Host, did syntax.DID, collection syntax.NSID, rkey syntax.RecordKey) (bool, error) {
	query := url.Values{"repo": {did.String()}, "collection": {collection.String()}, "rkey": {rkey.String()}}
	a, err := c.fetch(ctx, newRequest(methodGetRecord, host, did.String(), xrpc(methodGetRecord, query), maxPageBody))
	if err == nil {
		a.Release()
		return true, nil
	}
	if e, ok := errors.AsType[*Error](err); ok && isRecordMissing(e, rkey) {
		return false, nil
	}
	return false, err
}

// isRecordMissing reports whether a host refused because there is no such record. Some say
// so by the name of the error, others only in words that name the record's key.
func isRecordMissing(e *Error, rkey syntax.RecordKey) bool {
	if e.Status != http.StatusBadRequest && e.Status != http.StatusNotFound {
		return false
	}
	if e.Name == "RecordNotFound" {
		return true
	}
	words := strings.ToLower(e.Message)
	return strings.Contains(e.Message, rkey.String()) &&
		(strings.Contains(words, "not found") || strings.Contains(words, "could not locate record") || strings.Contains(words, "could not find record"))
}
