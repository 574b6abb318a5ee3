package api

import (
	"encoding/json"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// RepoState is where a repo of a job stands.
type RepoState string

// The states of a repo of a job. All but the first are final.
const (
	RepoPending     RepoState = "pending" // found, or waiting to be read, for the first time or again
	RepoDone        RepoState = "done"    // read, with records
	RepoEmpty       RepoState = "empty"   // read, and it has none
	RepoUnavailable RepoState = "unavailable"
	RepoFailed      RepoState = "failed" // given up
)

// RepoStates is every state of a repo.
func RepoStates() []RepoState {
	return []RepoState{RepoPending, RepoDone, RepoEmpty, RepoUnavailable, RepoFailed}
}

// Repo is a repo of a job.
type Repo struct {
	DID           syntax.DID `json:"did"`
	PDS           *string    `json:"pds"`
	State         RepoState  `json:"state"`
	Reason        *string    `json:"reason"`
	Attempts      int        `json:"attempts"`
	NextAttemptAt *string    `json:"next_attempt_at"`
	Records       int64      `json:"records"`
	Rejected      int64      `json:"rejected_records"`
	Rev           *string    `json:"rev"`
}

// RepoPage is a page of a job's repos, of which clients may read each as it came. It may
// be short, or empty, and yet have a cursor: a page is looked for in a bounded number of
// repos.
type RepoPage[R Repo | json.RawMessage] struct {
	Repos  []R    `json:"repos"`
	Cursor string `json:"cursor,omitempty"`
}

// ReportLine is a repo of a job and what has become of it.
type ReportLine struct {
	DID      syntax.DID `json:"did"`
	PDS      *string    `json:"pds"`
	Class    string     `json:"class"`  // of one that was read, how exact the index is; else its RepoState
	Reason   *string    `json:"reason"` // of an unavailable, failed or pending one
	Detail   *string    `json:"detail"` // the same in words; or what an exact one rests on
	Attempts int        `json:"attempts"`
	Records  int64      `json:"records"`
	Rejected int64      `json:"rejected_records"`
	Rev      *string    `json:"rev"` // at which it was read
}

// HostState is how it stands with a host of a job.
type HostState string

// The states of a host. The first three are the host's, the others the job's.
const (
	HostActive  HostState = "active"  // may be asked
	HostParked  HostState = "parked"  // has asked to be left alone, or our own network is gone
	HostDown    HostState = "down"    // does not answer, and is looked at now and then
	HostDone    HostState = "done"    // the job has nothing left to do there
	HostStopped HostState = "stopped" // the job has ended with something left to do there
)

// Host is what a job has to do with a host.
type Host struct {
	Endpoint       string    `json:"pds_endpoint"`
	TotalRepos     int64     `json:"total_repos"`
	CompletedRepos int64     `json:"completed_repos"`
	FailedRepos    int64     `json:"failed_repos"`
	TotalRecords   int64     `json:"total_records"`
	State          HostState `json:"state"`
	PausedUntil    *string   `json:"paused_until"`
}

// Hosts is all hosts of a job, that with most repos first.
type Hosts struct {
	Hosts []Host `json:"pds_endpoints"`
}
