package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/api"
	"appview/store"
	"appview/store/jobs"
)

func newJobBody(j jobs.Job) api.Job {
	done := j.Status == api.StatusCompleted
	return api.Job{
		ID:             j.ID,
		Collection:     api.Known(string(j.Request.Collection), j.Request.Collection != ""),
		DID:            api.Known(string(j.Request.DID), j.Request.DID != ""),
		Status:         j.Status,
		Stage:          j.Stage,
		TotalRepos:     api.Known(j.TotalRepos, j.Listed || done),
		ProcessedRepos: api.Known(j.Processed, j.Processed > 0 || done),
		TotalRecords:   api.Known(j.Tally.Records, j.Processed > 0 || done),
		Error:          api.Known(j.Error, j.Error != ""),
		StartedAt:      api.Known(api.Stamp(j.StartedAt), !j.StartedAt.IsZero()),
		CompletedAt:    api.Known(api.Stamp(j.CompletedAt), !j.CompletedAt.IsZero()),
		CreatedAt:      api.Stamp(j.CreatedAt),
	}
}

// originOf is who wanted a job.
func originOf(j jobs.Job) api.Origin { return cmp.Or(j.Origin, api.OriginRequest) }

// reasonEmpty is the reason under which repos without records are settled.
const reasonEmpty = "empty"

func (ctl *Control) newJobDetail(ctx context.Context, j jobs.Job) (api.JobDetail, error) {
	d := api.JobDetail{
		Job:               newJobBody(j),
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
		Scope:             api.ScopeNetwork,
		Targets:           append([]syntax.NSID{}, j.Targets...), // none is [], not null
		Origin:            originOf(j),
		Reasons:           map[string]int64{}, // none is {}, not null
	}
	maps.Copy(d.Reasons, j.Reasons)
	if !j.Request.Network() {
		d.Scope = api.ScopeDIDs
	}
	if j.RetryOf != 0 {
		old, err := ctl.cfg.Store.Jobs.JobBySeq(ctx, j.RetryOf)
		if err != nil && !errors.Is(err, store.ErrNotFound) { // forgotten
			return d, fmt.Errorf("job that %s retries: %w", j.ID, err)
		}
		d.RetryOf = api.Known(old.ID.String(), err == nil)
	}
	if j.Status.Final() {
		return d, nil
	}
	waiting, repos, records := ctl.cfg.Jobs.Progress(j)
	d.Waiting = api.Known(waiting, waiting != "")
	if host, since, until, answer := ctl.cfg.Jobs.Waits(j); host != "" {
		d.WaitingHost, d.WaitingAnswer = &host, api.Known(answer, answer != "")
		d.WaitingSince, d.WaitingUntil = api.Known(api.Stamp(since), true), api.Known(api.Stamp(until), true)
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
