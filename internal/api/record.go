package api

import (
	"encoding/json"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// Record is a record. The server prints it by hand, since it prints very many.
type Record struct {
	URI        string           `json:"uri"`
	CID        string           `json:"cid"`
	DID        syntax.DID       `json:"did"`
	Collection syntax.NSID      `json:"collection"`
	RKey       syntax.RecordKey `json:"rkey"`
	Rev        syntax.TID       `json:"rev"`
	IndexedAt  string           `json:"indexed_at"`
	Provenance string           `json:"provenance,omitempty"` // not in an export
	Value      json.RawMessage  `json:"value"`
}

// Records is a page of records.
type Records struct {
	Records []Record `json:"records"`
	Cursor  string   `json:"cursor,omitempty"`
}

// Deleted says how many records were deleted.
type Deleted struct {
	Deleted int64 `json:"deleted"`
}
