package api

import (
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/google/uuid"
)

// Age says how old the index is in a collection.
type Age struct {
	SyncedAt   *string `json:"synced_at"`
	AgeSeconds *int64  `json:"age_seconds"`
}

// Collection is a tracked collection.
type Collection struct {
	Collection   syntax.NSID `json:"collection"`
	Records      int64       `json:"records"`
	Repos        int64       `json:"repos"`
	TrackedSince string      `json:"tracked_since"`
	Age

	RefreshAt *string  `json:"refresh_at"` // when it is read again by itself; null: not, or it is being read
	LastJob   *LastJob `json:"last_job"`
}

// LastJob is the job that reads a collection from the network, or did last.
type LastJob struct {
	ID          uuid.UUID `json:"id"`
	Status      Status    `json:"status"`
	Origin      Origin    `json:"origin"`
	Error       *string   `json:"error"`
	CreatedAt   string    `json:"created_at"`
	StartedAt   *string   `json:"started_at"`
	CompletedAt *string   `json:"completed_at"`
}

// Collections is the list of tracked collections.
type Collections struct {
	Collections []Collection `json:"collections"`
}

// Added is the answer to whoever tracks a collection: the job that reads it now.
type Added struct {
	Collection syntax.NSID `json:"collection"`
	Job        *JobRef     `json:"job"`
}

// Removed is the answer to whoever removes one.
type Removed struct {
	Collection syntax.NSID `json:"collection"`
	Deleted    int64       `json:"deleted"` // records
}

// What becomes of the records of a collection that is removed.
const (
	KeepRecords   = "keep"
	DeleteRecords = "delete"
)

// Stats is what the index holds.
type Stats struct {
	Collections map[syntax.NSID]CollectionStats `json:"collections"`
	Repos       int64                           `json:"repos"`
	Seq         uint64                          `json:"seq"`
	Database    DatabaseStats                   `json:"database"`
	Tracked     []syntax.NSID                   `json:"tracked_collections"`
	DiskFull    bool                            `json:"disk_full"`
	Version     string                          `json:"version"`
}

// CollectionStats is what the index holds of a collection.
type CollectionStats struct {
	Records int64 `json:"records"`
	Repos   int64 `json:"repos"`
	Age
}

// DatabaseStats is the size of the file, and of what is free in it.
type DatabaseStats struct {
	FileBytes int64 `json:"file_bytes"`
	FreeBytes int64 `json:"free_bytes"`
}
