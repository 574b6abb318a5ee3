package api

import (
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/google/uuid"
)

// Status is what a job is.
type Status string

// The statuses of a job. The last three are final.
const (
	StatusRunning    Status = "running"    // created; its worker runs, or waits for its turn
	StatusPausing    Status = "pausing"    // asked to pause; its worker has not stopped yet
	StatusPaused     Status = "paused"     // nobody works on it until it is asked to go on
	StatusCancelling Status = "cancelling" // asked to stop; its worker has not stopped yet
	StatusCancelled  Status = "cancelled"  // stopped because it was asked to
	StatusCompleted  Status = "completed"  // every repo it found is settled
	StatusFailed     Status = "failed"     // it could not find out which repos there are
)

// Statuses is every status.
func Statuses() []Status {
	return []Status{
		StatusRunning, StatusPausing, StatusPaused, StatusCancelling, StatusCancelled, StatusCompleted, StatusFailed,
	}
}

// Final reports whether a job of this status will never change again.
func (s Status) Final() bool {
	switch s {
	case StatusRunning, StatusPausing, StatusPaused, StatusCancelling:
		return false
	default:
		return true
	}
}

// Stage is the earliest phase that still owes work, kept as a high-water mark.
type Stage string

// The stages of a job, in the order in which they follow each other. A final
// status has the stage of the same name.
const (
	StagePending     Stage = "pending"
	StageDiscovering Stage = "discovering_repos"
	StageResolving   Stage = "resolving_pds"
	StageFetching    Stage = "fetching_records"
	StageCompleted   Stage = "completed"
	StageFailed      Stage = "failed"
	StageCancelled   Stage = "cancelled"
)

// Origin is who wanted a job.
type Origin string

// The origins of a job.
const (
	OriginRequest Origin = "request" // somebody asked for it
	OriginStart   Origin = "start"   // the configuration names its collection, which was never read completely
	OriginRefresh Origin = "refresh" // it was time to read its collection again
)

// Waiting is what an unfinished job waits for.
type Waiting string

// What a job may wait for.
const (
	WaitingQueue     Waiting = "queue"     // for its turn
	WaitingNetwork   Waiting = "network"   // for our own network to come back
	WaitingDisk      Waiting = "disk"      // for room on the disk
	WaitingRelay     Waiting = "relay"     // for the relay, which does not answer or asked to be left alone
	WaitingDirectory Waiting = "directory" // for the PLC directory, likewise
	WaitingHosts     Waiting = "hosts"     // for hosts that are down or asked to be left alone
)

// Waits is everything that a job may wait for.
func Waits() []Waiting {
	return []Waiting{WaitingQueue, WaitingNetwork, WaitingDisk, WaitingRelay, WaitingDirectory, WaitingHosts}
}

// Scope is which repos a job covers.
type Scope string

// The scopes of a job.
const (
	ScopeNetwork Scope = "network" // every repo that the relay lists
	ScopeDIDs    Scope = "dids"    // the repos that were named
)

// JobRequest is what a job is asked to cover. It names one repo in DID, or several in DIDs.
type JobRequest struct {
	Collection *string  `json:"collection,omitempty"` // nil: the tracked ones, or all; empty is sent, and refused
	DID        *string  `json:"did,omitempty"`
	DIDs       []string `json:"dids,omitempty"`
}

// JobRef is the answer to a request that commands a job.
type JobRef struct {
	ID     uuid.UUID `json:"id"`
	Status Status    `json:"status"`
}

// Job is a job as the list shows it.
type Job struct {
	ID             uuid.UUID `json:"id"`
	Collection     *string   `json:"collection"`
	DID            *string   `json:"did"`
	Status         Status    `json:"status"`
	Stage          Stage     `json:"stage"`
	TotalRepos     *int64    `json:"total_repos"`
	ProcessedRepos *int64    `json:"processed_repos"`
	TotalRecords   *int64    `json:"total_records"`
	Error          *string   `json:"error"`
	StartedAt      *string   `json:"started_at"`
	CompletedAt    *string   `json:"completed_at"`
	CreatedAt      string    `json:"created_at"`
}

// JobDetail is one job with everything that is known of it.
type JobDetail struct {
	Job

	ResolvedRepos     int64         `json:"resolved_repos"`
	FailedRepos       int64         `json:"failed_repos"`
	UnavailableRepos  int64         `json:"unavailable_repos"`
	EmptyRepos        int64         `json:"empty_repos"`
	CreatedRecords    int64         `json:"created_records"`
	UpdatedRecords    int64         `json:"updated_records"`
	DeletedRecords    int64         `json:"deleted_records"`
	UnchangedRecords  int64         `json:"unchanged_records"`
	RejectedRecords   int64         `json:"rejected_records"`
	DiscoveryComplete bool          `json:"discovery_complete"`
	Scope             Scope         `json:"scope"`
	Targets           []syntax.NSID `json:"targets"`
	Origin            Origin        `json:"origin"`
	RetryOf           *string       `json:"retry_of"`
	Waiting           *Waiting      `json:"waiting"`
	WaitingHost       *string       `json:"waiting_host"`
	WaitingSince      *string       `json:"waiting_since"`
	WaitingUntil      *string       `json:"waiting_until"`
	WaitingAnswer     *string       `json:"waiting_answer"`
	RecordsPerSecond  float64       `json:"records_per_second"`
	ReposPerSecond    float64       `json:"repos_per_second"`
	ETASeconds        *float64      `json:"eta_seconds"`

	Reasons map[string]int64 `json:"reasons"`
}
