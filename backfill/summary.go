package backfill

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"appview/internal/network/outcome"
	"appview/store/jobs"
)

// summary is the error that a completed job shows: which repos were given up,
// and, when the request named the DIDs, which are not to be had. It is empty
// when there is nothing to say.
func summary(j jobs.Job) string {
	var parts []string
	if j.Failed > 0 {
		parts = append(parts, fmt.Sprintf("%d of %d repos could not be read: %s",
			j.Failed, j.TotalRepos, reasons(j, outcome.ClassFailed)))
	}
	if j.Unavailable > 0 && !j.Request.Network() {
		parts = append(parts, fmt.Sprintf("%d of %d repos are unavailable: %s",
			j.Unavailable, j.TotalRepos, reasons(j, outcome.ClassUnavailable)))
	}
	return strings.Join(parts, "; ")
}

// reasons lists the reasons of a class with their numbers, most first.
func reasons(j jobs.Job, class outcome.Class) string {
	names := slices.SortedFunc(maps.Keys(j.Reasons), func(a, b string) int {
		return cmp.Or(cmp.Compare(j.Reasons[b], j.Reasons[a]), cmp.Compare(a, b))
	})
	var parts []string
	for _, name := range names {
		if outcome.Reason(name).Class() == class {
			parts = append(parts, fmt.Sprintf("%d %s", j.Reasons[name], name))
		}
	}
	return strings.Join(parts, ", ")
}
