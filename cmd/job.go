package cmd

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"appview/internal/network/outcome"
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
	ResolvedRepos     int64            `json:"resolved_repos"`
	FailedRepos       int64            `json:"failed_repos"`
	UnavailableRepos  int64            `json:"unavailable_repos"`
	EmptyRepos        int64            `json:"empty_repos"`
	CreatedRecords    int64            `json:"created_records"`
	UpdatedRecords    int64            `json:"updated_records"`
	DeletedRecords    int64            `json:"deleted_records"`
	UnchangedRecords  int64            `json:"unchanged_records"`
	RejectedRecords   int64            `json:"rejected_records"`
	DiscoveryComplete bool             `json:"discovery_complete"`
	Scope             string           `json:"scope"`
	Targets           []string         `json:"targets"`
	Origin            string           `json:"origin"`
	RetryOf           *string          `json:"retry_of"`
	Waiting           *string          `json:"waiting"`
	WaitingHost       *string          `json:"waiting_host"`
	WaitingSince      *string          `json:"waiting_since"`
	WaitingUntil      *string          `json:"waiting_until"`
	WaitingAnswer     *string          `json:"waiting_answer"`
	RecordsPerSecond  float64          `json:"records_per_second"`
	ReposPerSecond    float64          `json:"repos_per_second"`
	ETASeconds        *float64         `json:"eta_seconds"`
	Reasons           map[string]int64 `json:"reasons"`
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
	what := text(j.Collection, "tracked or all collections") // the list does not say
	switch {
	case j.Collection != nil:
	case len(j.Targets) > 0:
		what = "the tracked collections " + strings.Join(j.Targets, ", ")
	case j.Targets != nil:
		what = "all collections"
	}
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

// outcome is the error of a final job that did not end well.
func (j jobView) outcome() error {
	if j.Status == "completed" {
		return nil
	}
	return fmt.Errorf("job %s is %s: %s", j.ID, j.Status, text(j.Error, "no reason was given"))
}

// line is the job's state on one line.
func (j jobView) line(now time.Time) string {
	parts := []string{
		fmt.Sprintf("%-17s", j.phase()),
		fmt.Sprintf("%s/%s repos", number(j.ProcessedRepos), number(j.TotalRepos)),
	}
	parts = append(parts, j.pace()...)
	if lost := j.losses(); lost != "" {
		parts = append(parts, lost)
	}
	if service := j.service(now); service != "" {
		parts = append(parts, service)
	}
	return strings.TrimSpace(strings.Join(parts, "  "))
}

// pace says what has been found, and how fast that goes.
func (j jobView) pace() []string {
	parts := []string{number(j.TotalRecords) + " records"}
	if j.final() {
		return parts
	}
	if j.ReposPerSecond > 0 || j.RecordsPerSecond > 0 {
		parts = append(parts, perSecond(j.ReposPerSecond)+" repos/s", perSecond(j.RecordsPerSecond)+" records/s")
	}
	if j.ETASeconds != nil {
		parts = append(parts, span(int64(*j.ETASeconds))+" left")
	}
	if j.Waiting != nil {
		parts = append(parts, "waits for "+waits(*j.Waiting))
	}
	return parts
}

// service says how the relay or the directory answers that a job waits for.
func (j jobView) service(now time.Time) string {
	if j.WaitingHost == nil {
		return ""
	}
	s := *j.WaitingHost + " has not answered since " + text(j.WaitingSince, "lately")
	if until, err := time.Parse(time.RFC3339, text(j.WaitingUntil, "")); err == nil && until.After(now) {
		s += ", is asked again in " + span(int64(until.Sub(now).Seconds())+1)
	}
	if j.WaitingAnswer != nil {
		s += ": " + *j.WaitingAnswer
	}
	return s
}

// waits says in words what a job waits for.
func waits(what string) string {
	switch what {
	case "queue":
		return "its turn: other jobs come first"
	case "network":
		return "the network: this machine has none"
	case "disk":
		return "room on the disk"
	case "relay":
		return "the relay"
	case "directory":
		return "the directory"
	case "hosts":
		return "hosts that are down, or asked for a pause"
	default:
		return what
	}
}

// losses says which repos were not read, and why: those that were given up first.
func (j jobView) losses() string {
	var parts []string
	for _, c := range []struct {
		class outcome.Class
		name  string
		n     int64
	}{{outcome.ClassFailed, "failed", j.FailedRepos}, {outcome.ClassUnavailable, "unavailable", j.UnavailableRepos}} {
		if c.n == 0 {
			continue
		}
		part := number(&c.n) + " " + c.name
		if why := j.why(c.class); why != "" {
			part += " (" + why + ")"
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, ", ")
}

// why counts the repos of a class by reason, the most frequent first.
func (j jobView) why(class outcome.Class) string {
	var parts []string
	reasons := slices.SortedFunc(maps.Keys(j.Reasons), func(a, b string) int {
		return cmp.Or(cmp.Compare(j.Reasons[b], j.Reasons[a]), cmp.Compare(a, b))
	})
	for _, r := range reasons {
		if n := j.Reasons[r]; outcome.Reason(r).Class() == class {
			parts = append(parts, number(&n)+" "+r)
		}
	}
	return strings.Join(parts, ", ")
}

// perSecond prints a rate.
func perSecond(rate float64) string {
	if rate < 10 {
		return fmt.Sprintf("%.1f", rate)
	}
	n := int64(rate)
	return number(&n)
}
