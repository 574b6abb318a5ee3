package control

import (
	"encoding/json"
	"net/http"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/api"
	"appview/server/answer"
	"appview/store/jobs"
)

const (
	// reportPage is how many repos are read from the store at once. No transaction
	// waits for the client.
	reportPage = 1000
)

// endAssumed is the detail of a repo whose last page was short and had a cursor,
// which was not followed: on that host such pages have proved to be the last.
const endAssumed = "a page that was not full was taken for the last"

// newReportLine gives each repo one class. A repo that was read has the reason of
// its settlement as its class: how exact the index is.
func newReportLine(r jobs.JobRepo) api.ReportLine {
	l := api.ReportLine{
		DID: r.DID, PDS: api.Known(r.Host, r.Host != ""), Class: string(stateOf(r)),
		Attempts: r.Attempts, Records: r.Records, Rejected: r.Rejected, Rev: api.Known(string(r.Rev), r.Rev != ""),
	}
	if r.State == jobs.RepoSettled && r.Class == jobs.ClassDone {
		l.Class, l.Detail = r.Reason, api.Known(endAssumed, r.Assumed && !r.Unprobed)
		return l
	}
	l.Reason, l.Detail = api.Known(r.Reason, r.Reason != ""), api.Known(r.Detail, r.Detail != "")
	return l
}

// reportJob streams one line for each repo that the job has discovered, in DID
// order. Those of a job that has ended add up to its total_repos; while it runs,
// what is not settled is pending, and what it finds behind the reader's back may
// be missing.
func (ctl *Control) reportJob(w http.ResponseWriter, r *http.Request) error {
	if _, err := answer.Query(r); err != nil {
		return err
	}
	job, err := ctl.job(r)
	if err != nil {
		return err
	}
	return ctl.out.StreamLines(w, r, ctl.out.Bounds.Reports, "reports", func(l *answer.Lines) error {
		enc := json.NewEncoder(l)
		enc.SetEscapeHTML(false)
		for after, first := syntax.DID(""), true; first || after != ""; first = false {
			list, next, err := ctl.jobRepos(r.Context(), job, after, reportPage, "")
			if err != nil {
				return err
			}
			if first { // only now: what is forgotten is still an answer of its own
				if err := l.Begin(); err != nil {
					return err
				}
			}
			for _, one := range list {
				if err := enc.Encode(newReportLine(one)); err != nil {
					return err
				}
			}
			after = next
		}
		return nil
	})
}
