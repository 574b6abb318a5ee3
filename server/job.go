package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/google/uuid"

	"appview/store"
)

// jobRef is the answer to a request that commands a job.
type jobRef struct {
	ID     uuid.UUID    `json:"id"`
	Status store.Status `json:"status"`
}

// jobBody is a job as the list shows it. Every member is always there; null says
// that it is not known yet.
type jobBody struct {
	ID             uuid.UUID    `json:"id"`
	Collection     *string      `json:"collection"`
	DID            *string      `json:"did"`
	Status         store.Status `json:"status"`
	Stage          store.Stage  `json:"stage"`
	TotalRepos     *int64       `json:"total_repos"`
	ProcessedRepos *int64       `json:"processed_repos"`
	TotalRecords   *int64       `json:"total_records"`
	Error          *string      `json:"error"`
	StartedAt      *string      `json:"started_at"`
	CompletedAt    *string      `json:"completed_at"`
	CreatedAt      string       `json:"created_at"`
}

func newJobBody(j store.Job) jobBody {
	done := j.Status == store.StatusCompleted
	return jobBody{
		ID:             j.ID,
		Collection:     known(string(j.Request.Collection), j.Request.Collection != ""),
		DID:            known(string(j.Request.DID), j.Request.DID != ""),
		Status:         j.Status,
		Stage:          j.Stage,
		TotalRepos:     known(j.TotalRepos, j.Listed || done),
		ProcessedRepos: known(j.Processed, j.Processed > 0 || done),
		TotalRecords:   known(j.Tally.Records, j.Processed > 0 || done),
		Error:          known(j.Error, j.Error != ""),
		StartedAt:      known(stamp(j.StartedAt), !j.StartedAt.IsZero()),
		CompletedAt:    known(stamp(j.CompletedAt), !j.CompletedAt.IsZero()),
		CreatedAt:      stamp(j.CreatedAt),
	}
}

// known is a member that may be null.
func known[T any](v T, is bool) *T {
	if !is {
		return nil
	}
	return &v
}

// stamp is how times are written: UTC, whole seconds.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// What a job covers.
const (
	scopeNetwork = "network" // every repo that the relay lists
	scopeDIDs    = "dids"    // the repos that were named
)

// jobDetail is one job with everything that is known of it.
type jobDetail struct {
	jobBody

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
	Scope             string        `json:"scope"`
	Targets           []syntax.NSID `json:"targets"`
	Origin            string        `json:"origin"`
	RetryOf           *string       `json:"retry_of"`
	Waiting           *string       `json:"waiting"`
	WaitingHost       *string       `json:"waiting_host"`
	WaitingSince      *string       `json:"waiting_since"`
	WaitingUntil      *string       `json:"waiting_until"`
	WaitingAnswer     *string       `json:"waiting_answer"`
	RecordsPerSecond  float64       `json:"records_per_second"`
	ReposPerSecond    float64       `json:"repos_per_second"`
	ETASeconds        *float64      `json:"eta_seconds"`

	Reasons map[string]int64 `json:"reasons"`
}

// originOf is who wanted a job.
func originOf(j store.Job) string { return string(cmp.Or(j.Origin, store.OriginRequest)) }

// reasonEmpty is the reason under which repos without records are settled.
const reasonEmpty = "empty"

func (s *Server) newJobDetail(ctx context.Context, j store.Job) (jobDetail, error) {
	d := jobDetail{
		jobBody:           newJobBody(j),
		ResolvedRepos:     j.TotalRepos - j.Unresolved,
		FailedRepos:       j.Failed,
		UnavailableRepos:  j.Unavailable,
		EmptyRepos:        j.Reasons[reasonEmpty],
		CreatedRecords:    j.Tally.Created,
		UpdatedRecords:    j.Tally.Updated,
		DeletedRecords:    j.Tally.Deleted,
		UnchangedRecords:  j.Tally.Unchanged(),
		RejectedRecords:   j.Tally.Rejected,
		DiscoveryComplete: j.Discovered && j.DiscoveryError == "",
		Scope:             scopeNetwork,
		Targets:           append([]syntax.NSID{}, j.Targets...), // none is [], not null
		Origin:            originOf(j),
		Reasons:           map[string]int64{}, // none is {}, not null
	}
	maps.Copy(d.Reasons, j.Reasons)
	if !j.Request.Network() {
		d.Scope = scopeDIDs
	}
	if j.RetryOf != 0 {
		old, err := s.cfg.Store.JobBySeq(ctx, j.RetryOf)
		if err != nil && !errors.Is(err, store.ErrNotFound) { // forgotten
			return d, fmt.Errorf("job that %s retries: %w", j.ID, err)
		}
		d.RetryOf = known(old.ID.String(), err == nil)
	}
	if j.Status.Final() {
		return d, nil
	}
	waiting, repos, records := s.cfg.Jobs.Progress(j)
	d.Waiting = known(waiting, waiting != "")
	if host, since, until, answer := s.cfg.Jobs.Waits(j); host != "" {
		d.WaitingHost, d.WaitingAnswer = &host, known(answer, answer != "")
		d.WaitingSince, d.WaitingUntil = known(stamp(since), true), known(stamp(until), true)
	}
	d.ReposPerSecond, d.RecordsPerSecond = hundredths(repos), hundredths(records)
	if j.Discovered && waiting == "" && repos > 0 {
		left := math.Ceil(float64(j.TotalRepos-j.Processed+j.Reopened) / repos)
		d.ETASeconds = &left
	}
	return d, nil
}

// hundredths keeps rates readable, and encodable whatever was divided by what.
func hundredths(f float64) float64 {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return 0
	}
	return math.Round(f*100) / 100
}
