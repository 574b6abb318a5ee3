package term

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/api"
	"appview/internal/network/outcome"
)

// Job is a job as it is shown.
type Job struct{ api.JobDetail }

// MadeBy says who wanted the job.
func (j Job) MadeBy() string {
	switch j.Origin {
	case api.OriginStart:
		return "the start of the server: its settings name the collection"
	case api.OriginRefresh:
		return "the schedule: the collection was read too long ago"
	default:
		return "request"
	}
}

// Covers says what the job is about.
func (j Job) Covers() string {
	what := Text(j.Collection, "tracked or all collections") // the list does not say
	switch {
	case j.Collection != nil:
	case len(j.Targets) > 0:
		what = "the tracked collections " + Join(j.Targets)
	case j.Targets != nil:
		what = "all collections"
	}
	switch {
	case j.DID != nil:
		what += " of " + *j.DID
	case j.Scope == api.ScopeDIDs:
		what += " of the repos that were named"
	}
	return what
}

// Join are collections, one after the other.
func Join(list []syntax.NSID) string {
	texts := make([]string, len(list))
	for i, c := range list {
		texts[i] = c.String()
	}
	return strings.Join(texts, ", ")
}

// Phase is the job's stage while it is worked on, else what it is.
func (j Job) Phase() string {
	if j.Status == api.StatusRunning {
		return string(j.Stage)
	}
	return string(j.Status)
}

// Err is the error of a final job that did not end well.
func (j Job) Err() error {
	if j.Status == api.StatusCompleted {
		return nil
	}
	return fmt.Errorf("job %s is %s: %s", j.ID, j.Status, Text(j.Error, "no reason was given"))
}

// line is the job's state on one line.
func (j Job) line(now time.Time) string {
	parts := []string{
		fmt.Sprintf("%-17s", j.Phase()),
		fmt.Sprintf("%s/%s repos", Number(j.ProcessedRepos), Number(j.TotalRepos)),
	}
	parts = append(parts, j.Pace()...)
	if lost := j.Losses(); lost != "" {
		parts = append(parts, lost)
	}
	if service := j.service(now); service != "" {
		parts = append(parts, service)
	}
	return strings.TrimSpace(strings.Join(parts, "  "))
}

// Pace says what has been found, and how fast that goes.
func (j Job) Pace() []string {
	parts := []string{Number(j.TotalRecords) + " records"}
	if j.Status.Final() {
		return parts
	}
	if j.ReposPerSecond > 0 || j.RecordsPerSecond > 0 {
		parts = append(parts, perSecond(j.ReposPerSecond)+" repos/s", perSecond(j.RecordsPerSecond)+" records/s")
	}
	if j.ETASeconds != nil {
		parts = append(parts, Span(int64(*j.ETASeconds))+" left")
	}
	if j.Waiting != nil {
		parts = append(parts, "waits for "+waits(*j.Waiting))
	}
	return parts
}

// service says how the relay or the directory answers that a job waits for.
func (j Job) service(now time.Time) string {
	if j.WaitingHost == nil {
		return ""
	}
	s := *j.WaitingHost + " has not answered since " + Text(j.WaitingSince, "lately")
	if until, err := time.Parse(time.RFC3339, Text(j.WaitingUntil, "")); err == nil && until.After(now) {
		s += ", is asked again in " + Span(int64(until.Sub(now).Seconds())+1)
	}
	if j.WaitingAnswer != nil {
		s += ": " + *j.WaitingAnswer
	}
	return s
}

// waits says in words what a job waits for.
func waits(what api.Waiting) string {
	switch what {
	case api.WaitingQueue:
		return "its turn: other jobs come first"
	case api.WaitingNetwork:
		return "the network: this machine has none"
	case api.WaitingDisk:
		return "room on the disk"
	case api.WaitingRelay:
		return "the relay"
	case api.WaitingDirectory:
		return "the directory"
	case api.WaitingHosts:
		return "hosts that are down, or asked for a pause"
	default:
		return string(what)
	}
}

// Losses says which repos were not read, and why: those that were given up first.
func (j Job) Losses() string {
	var parts []string
	for _, c := range []struct {
		class outcome.Class
		name  string
		n     int64
	}{{outcome.ClassFailed, "failed", j.FailedRepos}, {outcome.ClassUnavailable, "unavailable", j.UnavailableRepos}} {
		if c.n == 0 {
			continue
		}
		part := Count(c.n) + " " + c.name
		if why := j.why(c.class); why != "" {
			part += " (" + why + ")"
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, ", ")
}

// why counts the repos of a class by reason, the most frequent first.
func (j Job) why(class outcome.Class) string {
	var parts []string
	reasons := slices.SortedFunc(maps.Keys(j.Reasons), func(a, b string) int {
		return cmp.Or(cmp.Compare(j.Reasons[b], j.Reasons[a]), cmp.Compare(a, b))
	})
	for _, r := range reasons {
		if n := j.Reasons[r]; outcome.Reason(r).Class() == class {
			parts = append(parts, Count(n)+" "+r)
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
	return Count(n)
}
