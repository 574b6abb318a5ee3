package server

import (
	"net/http"
	"time"

	"appview/internal/api"
	"appview/store/jobs"
)

// Hosts tells how hosts behave at the moment.
type Hosts interface {
	// HostState tells whether the host at a URL may be asked, and when it will be
	// asked next, if it may not be now.
	HostState(url string) (state api.HostState, pausedUntil time.Time)
}

// listJobHosts answers with the hosts on which the job has found repos.
func (s *Server) listJobHosts(r *http.Request) (reply, error) {
	if _, err := query(r); err != nil {
		return reply{}, err
	}
	job, err := s.job(r)
	if err != nil {
		return reply{}, err
	}
	list, err := s.cfg.Store.Jobs.JobHosts(r.Context(), job.Seq)
	if err != nil {
		return reply{}, forgotten(job, err)
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
		one.State, until = s.hostState(job, h)
		one.PausedUntil = api.Known(api.Stamp(until), !until.IsZero())
		body.Hosts = append(body.Hosts, one)
	}
	return ok(body), nil
}

// hostState is how it stands with a host as far as the job is concerned.
func (s *Server) hostState(job jobs.Job, h jobs.JobHost) (api.HostState, time.Time) {
	switch {
	case h.Left() <= 0:
		return api.HostDone, time.Time{}
	case job.Status.Final(), job.Status == api.StatusPaused:
		return api.HostStopped, time.Time{}
	case s.cfg.Hosts == nil:
		return api.HostActive, time.Time{}
	default:
		return s.cfg.Hosts.HostState(h.Host)
	}
}
