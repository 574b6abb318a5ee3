package control

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/google/uuid"

	"appview/internal/api"
	"appview/server/answer"
	"appview/store"
	"appview/store/jobs"
)

// Bounds of a page of a job's repos.
const (
	standardRepos = 100
	maxRepos      = 1000
)

func stateOf(r jobs.JobRepo) api.RepoState {
	switch {
	case r.State != jobs.RepoSettled:
		return api.RepoPending
	case r.Class == jobs.ClassDone && r.Reason == reasonEmpty:
		return api.RepoEmpty
	default:
		return api.RepoState(r.Class)
	}
}

func newRepoBody(r jobs.JobRepo) api.Repo {
	return api.Repo{
		DID:           r.DID,
		PDS:           api.Known(r.Host, r.Host != ""),
		State:         stateOf(r),
		Reason:        api.Known(r.Reason, r.Reason != ""),
		Attempts:      r.Attempts,
		NextAttemptAt: api.Known(api.Stamp(r.NextAttempt), !r.NextAttempt.IsZero()),
		Records:       r.Records,
		Rejected:      r.Rejected,
		Rev:           api.Known(string(r.Rev), r.Rev != ""),
	}
}

// listJobRepos answers with a page of a job's repos, in DID order. Where a page
// ends does not depend on what the job does in the meantime.
func (ctl *Control) listJobRepos(r *http.Request) (answer.Reply, error) {
	params, err := answer.Query(r, "state", "cursor", "limit")
	if err != nil {
		return answer.Reply{}, err
	}
	job, err := ctl.job(r)
	if err != nil {
		return answer.Reply{}, err
	}
	state := api.RepoState(params["state"])
	if state != "" && !slices.Contains(api.RepoStates(), state) {
		return answer.Reply{}, answer.BadRequest("state %s is none of %s", answer.Quoted(params["state"]), fmt.Sprint(api.RepoStates()))
	}
	limit, err := answer.LimitOf(params["limit"], standardRepos, maxRepos)
	if err != nil {
		return answer.Reply{}, err
	}
	at, err := parseRepoCursor(params["cursor"], job.ID, state)
	if err != nil {
		return answer.Reply{}, err
	}
	list, next, err := ctl.jobRepos(r.Context(), job, at.after, limit, state)
	if err != nil {
		return answer.Reply{}, err
	}
	page := api.RepoPage[api.Repo]{Repos: make([]api.Repo, len(list))}
	for i, one := range list {
		page.Repos[i] = newRepoBody(one)
	}
	if next != "" {
		at.after = next
		page.Cursor = at.String()
	}
	return answer.OK(page), nil
}

// jobRepos reads a page of the job's repos, of one state or of all.
func (ctl *Control) jobRepos(ctx context.Context, job jobs.Job, after syntax.DID, limit int, state api.RepoState) ([]jobs.JobRepo, syntax.DID, error) {
	want := func(r jobs.JobRepo) bool { return state == "" || stateOf(r) == state }
	list, next, err := ctl.cfg.Store.Jobs.JobRepos(ctx, job.Seq, after, limit, want)
	return list, next, forgotten(job, err)
}

// forgotten explains that a job's repos are not kept for ever.
func forgotten(job jobs.Job, err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return answer.NotFound("the repos of job %s are forgotten: it ended too long ago", job.ID)
	}
	return err
}

// repoCursor is where a page of a job's repos ends. It names the query that it
// belongs to.
type repoCursor struct {
	job   uuid.UUID
	state api.RepoState
	after syntax.DID
}

// repoCursorKind tells the cursors of jobs' repos from those of records.
const repoCursorKind = "r1"

// String is the cursor as clients get it: no part of it is for them to read.
func (c repoCursor) String() string {
	parts := []string{repoCursorKind, c.job.String(), string(c.state), string(c.after)}
	return base64.RawURLEncoding.EncodeToString([]byte(strings.Join(parts, "\x00")))
}

// parseRepoCursor reads what String has written, for the given query.
func parseRepoCursor(text string, job uuid.UUID, state api.RepoState) (repoCursor, error) {
	c := repoCursor{job: job, state: state}
	if text == "" {
		return c, nil
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	parts := strings.Split(string(raw), "\x00")
	if err != nil || len(parts) != 4 || parts[0] != repoCursorKind {
		return c, answer.BadRequest("cursor %s was not made here: leave it out to begin anew", answer.Quoted(text))
	}
	if parts[1] != job.String() || parts[2] != string(state) {
		return c, answer.BadRequest("the cursor belongs to another query: send it for the same job with the same state")
	}
	if c.after, err = syntax.ParseDID(parts[3]); err != nil || c.String() != text {
		return c, answer.BadRequest("cursor %s is broken: leave it out to begin anew", answer.Quoted(text))
	}
	return c, nil
}
