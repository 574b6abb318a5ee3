package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

const (
	// watchEvery is how often a job is looked at where no events come through.
	watchEvery = 500 * time.Millisecond
	// plainEvery is how often a line is printed where no terminal is: lines stay.
	plainEvery = 5 * time.Second
)

// jobView is a job as the server shows it.
type jobView struct {
	ID             string  `json:"id"`
	Collection     *string `json:"collection"`
	DID            *string `json:"did"`
	Status         string  `json:"status"`
	Stage          string  `json:"stage"`
	TotalRepos     *int64  `json:"total_repos"`
	ProcessedRepos *int64  `json:"processed_repos"`
	TotalRecords   *int64  `json:"total_records"`
	Error          *string `json:"error"`
	StartedAt      *string `json:"started_at"`
	CompletedAt    *string `json:"completed_at"`
	CreatedAt      string  `json:"created_at"`

	// Of one job only.
	ResolvedRepos    int64    `json:"resolved_repos"`
	FailedRepos      int64    `json:"failed_repos"`
	UnavailableRepos int64    `json:"unavailable_repos"`
	EmptyRepos       int64    `json:"empty_repos"`
	CreatedRecords   int64    `json:"created_records"`
	UpdatedRecords   int64    `json:"updated_records"`
	DeletedRecords   int64    `json:"deleted_records"`
	UnchangedRecords int64    `json:"unchanged_records"`
	RejectedRecords  int64    `json:"rejected_records"`
	Scope            string   `json:"scope"`
	Origin           string   `json:"origin"`
	RetryOf          *string  `json:"retry_of"`
	Waiting          *string  `json:"waiting"`
	RecordsPerSecond float64  `json:"records_per_second"`
	ReposPerSecond   float64  `json:"repos_per_second"`
	ETASeconds       *float64 `json:"eta_seconds"`
}

func (j jobView) final() bool {
	return j.Status == "completed" || j.Status == "failed" || j.Status == "cancelled"
}

// origin says who wanted the job.
func (j jobView) origin() string {
	switch j.Origin {
	case "start":
		return "the start of the server: its settings name the collection"
	case "refresh":
		return "the schedule: the collection was read too long ago"
	default:
		return "request"
	}
}

// covers says what the job is about.
func (j jobView) covers() string {
	what := text(j.Collection, "all collections")
	switch {
	case j.DID != nil:
		what += " of " + *j.DID
	case j.Scope == "dids":
		what += " of the repos that were named"
	}
	return what
}

// phase is the job's stage while it is worked on, else what it is.
func (j jobView) phase() string {
	if j.Status == "running" {
		return j.Stage
	}
	return j.Status
}

// line is the job's state on one line.
func (j jobView) line() string {
	parts := []string{
		fmt.Sprintf("%-17s", j.phase()),
		fmt.Sprintf("%s/%s repos", number(j.ProcessedRepos), number(j.TotalRepos)),
		number(j.TotalRecords) + " records",
	}
	if j.ReposPerSecond > 0 && !j.final() {
		parts = append(parts, fmt.Sprintf("%.0f repos/s", j.ReposPerSecond))
	}
	if j.ETASeconds != nil {
		parts = append(parts, (time.Duration(*j.ETASeconds)*time.Second).String()+" left")
	}
	if j.Waiting != nil {
		parts = append(parts, "waits for "+*j.Waiting)
	}
	return strings.Join(parts, "  ")
}

// watch shows a job until it is final, and returns it: as the server sends it, or,
// where something on the way keeps its events back, by asking again and again.
func (c *client) watch(ctx context.Context, w io.Writer, id string, every time.Duration) (jobView, error) {
	show := display{w: w, live: isTerminal(w)}
	j, err := c.follow(ctx, id, eventPatience, func(j jobView) { show.show(j, time.Now()) })
	if err == nil {
		show.end()
		return j, nil
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		var j jobView
		_, err := c.get(ctx, jobPath(id), &j)
		if err != nil {
			show.end()
			if ctx.Err() != nil {
				return j, errors.New("no longer watched: the job goes on")
			}
			return j, err
		}
		show.show(j, time.Now())
		if j.final() {
			show.end()
			return j, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// outcome is the error of a final job that did not end well.
func (j jobView) outcome() error {
	if j.Status == "completed" {
		return nil
	}
	return fmt.Errorf("job %s is %s: %s", j.ID, j.Status, text(j.Error, "no reason was given"))
}

// display shows how a job goes on: on a terminal one line that changes, else a
// line now and then, and whenever the job enters another phase.
type display struct {
	w     io.Writer
	live  bool
	last  string // phase that was shown last
	at    time.Time
	shown bool
}

func (d *display) show(j jobView, now time.Time) {
	switch {
	case d.live:
		_, _ = fmt.Fprintf(d.w, "\r\x1b[K%s", j.line())
	case j.phase() != d.last || now.Sub(d.at) >= plainEvery:
		_, _ = fmt.Fprintln(d.w, strings.TrimSpace(j.line()))
	default:
		return
	}
	d.last, d.at, d.shown = j.phase(), now, true
}

// end leaves the last line where it is.
func (d *display) end() {
	if d.live && d.shown {
		_, _ = fmt.Fprintln(d.w)
	}
}
