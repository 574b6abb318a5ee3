package api

import (
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/google/uuid"
)

// Source says what a figure of a plan comes from.
type Source string

// The sources. The first three are knowledge, the others estimates.
const (
	SourceNamed   Source = "named"   // the request names them
	SourceListing Source = "listing" // the relay's listing was read to its end
	SourceLookup  Source = "lookup"  // every repo was looked up, or is in the index
	SourceJob     Source = "job"     // what an earlier job found
	SourceRelay   Source = "relay"   // what the relay has counted
	SourceSample  Source = "sample"  // some of the repos, and all are taken to be like them
	SourceIndex   Source = "index"   // the average of what the index holds
	SourceAtLeast Source = "floor"   // there are at least as many
	SourceAssumed Source = "assumed" // nothing is known: that all live at one host, with one page each
	SourceFixed   Source = "fixed"   // it is always as many
)

// Exact reports whether a figure is known.
func (s Source) Exact() bool { return s == SourceNamed || s == SourceListing || s == SourceLookup }

// Role is what somebody does for a job.
type Role string

// The roles. The last is no host: there are more hosts than may be read from at once.
const (
	RolePDS      Role = "pds"
	RolePLC      Role = "plc"
	RoleRelay    Role = "relay"
	RoleMaxHosts Role = "max_hosts"
)

// Plan is what a job would come to.
type Plan struct {
	Collection *string       `json:"collection"`
	Scope      Scope         `json:"scope"`
	Targets    []syntax.NSID `json:"targets"`
	Repos      int64         `json:"repos"`
	Hosts      int64         `json:"hosts"`
	Requests   int64         `json:"requests"`
	Seconds    int64         `json:"seconds"`
	Bottleneck *Load         `json:"bottleneck"`
	Estimate   bool          `json:"estimate"`
	Basis      PlanBasis     `json:"basis"`
	JobsBefore int           `json:"jobs_before"`
	PerHost    []HostLoad    `json:"per_host"`
}

// PlanBasis says what the figures of a plan come from.
type PlanBasis struct {
	Repos        Source     `json:"repos"`
	Hosts        Source     `json:"hosts"`
	Requests     Source     `json:"requests"`
	SampledRepos int        `json:"sampled_repos"`
	EarlierJob   *uuid.UUID `json:"earlier_job"`
}

// Load is what a job would ask of somebody.
type Load struct {
	Host     *string `json:"host"`
	Role     Role    `json:"role"`
	Repos    int64   `json:"repos"`
	Requests int64   `json:"requests"`
	Seconds  int64   `json:"seconds"`
}

// HostLoad is a load with what is known of the host now.
type HostLoad struct {
	Load

	State       HostState `json:"state"`
	PausedUntil *string   `json:"paused_until"`
}
