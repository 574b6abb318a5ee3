package control

import (
	"net/http"
	"time"

	"appview/internal/api"
	"appview/server/answer"
	"appview/store/jobs"
)

// Hosts tells how hosts behave at the moment.
type Hosts interface {
	// HostState reports whether the host at a URL may be asked, and when it will be
	// asked next, if it may not be now.
	HostState(url string) (state api.HostState, pausedUntil time.Time)
}

// listJobHosts answers with the hosts on which the job has found repos.
func (ctl *Control) listJobHosts(r *http.Request) (answer.Reply, error) {
	if _, err := answer.Query(r); err != nil {
		return answer.Reply{}, err
	}
	job, err := ctl.job(r)
	if err != nil {
		return answer.Reply{}, err
	}
	list, err := ctl.cfg.Store.Jobs.JobHosts(r.Context(), job.Seq)
	if err != nil {
		return answer.Reply{}, forgotten(job, err)
	}
	body := api.Hosts{Hosts: []api.Host{}}
	for _, h := range list {
		if h.Total == 0 {
			continue // all of its repos turned out to live elsewhere
		}
		one := api.Host{
			Endpoint: h.Host, TotalRepos: h.Total, CompletedRepos: h.Completed, FailedRepos: h.Failed, TotalRecords: h.Records,
		}
		var until time.Time
		one.State, until = ctl.hostState(job, h)
		one.PausedUntil = api.Known(api.Stamp(until), !until.IsZero())
		body.Hosts = append(body.Hosts, one)
	}
	return answer.OK(body), nil
}

// hostState is how it stands with a host as far as the job is concerned.
func (ctl *Control) hostState(job jobs.Job, h jobs.JobHost) (api.HostState, time.Time) {
	switch {
	case h.Left() <= 0:
		return api.HostDone, time.Time{}
	case job.Status.Final(), job.Status == api.StatusPaused:
		return api.HostStopped, time.Time{}
	case ctl.cfg.Hosts == nil:
		return api.HostActive, time.Time{}
	default:
		return ctl.cfg.Hosts.HostState(h.Host)
	}
}
