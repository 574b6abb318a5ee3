package read

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/network"
	"appview/internal/network/polite"
	"appview/internal/network/repo"
	"appview/internal/record"
	"appview/store/index"
	"appview/store/jobs"
)

// Repos are the questions about a repo that any reading asks its host.
type Repos interface {
	RepoStatus(ctx context.Context, host network.Host, did syntax.DID) (network.RepoStatus, error)
	DescribeRepo(ctx context.Context, host network.Host, did syntax.DID) (network.Description, error)
	ListRecords(ctx context.Context, host network.Host, did syntax.DID, collection syntax.NSID, cursor string) (network.RecordsPage, error)
	Repo(ctx context.Context, host network.Host, ident network.Identity) (*network.Repo, error)
}

// Records are the questions about single records.
type Records interface {
	HasRecord(ctx context.Context, host network.Host, did syntax.DID, collection syntax.NSID, rkey syntax.RecordKey) (bool, error)
	RecordProof(ctx context.Context, host network.Host, ident network.Identity, collection syntax.NSID, rkey syntax.RecordKey) (repo.Proof, error)
}

// Limits say which questions a host may be asked at the moment.
type Limits interface {
	ParkedUntil(host network.Host) (time.Time, bool)
	RepoParkedUntil(host network.Host) (time.Time, bool)
	HostState(host network.Host) polite.HostState
}

// Network is what a reading needs of the network.
type Network struct {
	Repos
	Records
	Limits

	// Lookup finds out where an account lives.
	Lookup func(context.Context, syntax.DID) (network.Identity, error)
}

// Index is what the index holds.
type Index interface {
	Repo(ctx context.Context, did syntax.DID) (index.Repo, error)
	Record(ctx context.Context, uri record.URI) (index.Record, error)
}

// Listings say what the index holds of a repo that need not be listed, or was not.
type Listings interface {
	Kept(ctx context.Context, host string, did syntax.DID, rev syntax.TID) ([]syntax.NSID, error)
	Unlisted(ctx context.Context, job uint64, did syntax.DID, seg index.Segment, limit int) ([]syntax.RecordKey, error)
}

// Ends say which short pages may be taken for the end of a listing.
type Ends interface {
	MayEnd(ctx context.Context, job uint64, host string, did syntax.DID, seg index.Segment) (bool, error)
	Distrusted(ctx context.Context, host string) (bool, error)
	Host(ctx context.Context, job uint64, host string) (jobs.HostWork, error)
}

// Steps commit parts of a long repo.
type Steps interface {
	Save(ctx context.Context, job uint64, did syntax.DID, r index.Reading, at jobs.Position) (int, error)
	Restart(ctx context.Context, job uint64, host string, did syntax.DID, at jobs.Position) error
}

// Store is what a reading needs of the store.
type Store struct {
	Index
	Listings
	Ends
	Steps
}

// Config is what a Reader works with.
type Config struct {
	Job      uint64        // whose repos are read
	Targets  []syntax.NSID // collections to read; none: all that a repo has
	Attempts int           // at a repo, before it is given up
	Limit    time.Duration // of one repo, over all attempts
	Network  Network
	Store    Store
	Buffered *atomic.Int64         // bytes of records that are read and not committed, over all readers
	Follow   func(syntax.DID) bool // whether a host is asked all the same for what could be assumed
	Fresh    func(time.Time) bool  // whether a look-up of that time, as a row has it, is not too old
	Progress func(host string)     // is told of every sign that a host gives something
	Now      func() time.Time
	Log      *slog.Logger
}
