package server

import (
	"net/http"
	"time"

	"appview/store"
)

// HostState is how it stands with a host of a job.
type HostState string

// The states of a host. Hosts knows the first three; the others come from the job.
const (
	HostActive HostState = "active" // may be asked
	HostParked HostState = "parked" // has asked to be left alone, or our own network is gone
	HostDown   HostState = "down"   // does not answer, and is looked at now and then

	hostDone    HostState = "done"    // the job has nothing left to do there
	hostStopped HostState = "stopped" // the job has ended with something left to do there
)

// Hosts tells how hosts behave at the moment.
type Hosts interface {
	// HostState tells whether the host at a URL may be asked, and when it will be
	// asked next, if it may not be now.
	HostState(url string) (state HostState, pausedUntil time.Time)
}

// hostBody is what a job has to do with a host.
type hostBody struct {
	Endpoint       string    `json:"pds_endpoint"`
	TotalRepos     int64     `json:"total_repos"`
	CompletedRepos int64     `json:"completed_repos"`
	FailedRepos    int64     `json:"failed_repos"`
	TotalRecords   int64     `json:"total_records"`
	State          HostState `json:"state"`
	PausedUntil    *string   `json:"paused_until"`
}

// hostsBody is all hosts of a job, that with most repos first.
type hostsBody struct {
	Hosts []hostBody `json:"pds_endpoints"`
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
	list, err := s.cfg.Store.JobHosts(r.Context(), job.Seq)
	if err != nil {
		return reply{}, forgotten(job, err)
	}
	body := hostsBody{Hosts: []hostBody{}}
	for _, h := range list {
		if h.Total == 0 {
			continue // all of its repos turned out to live elsewhere
		}
		one := hostBody{
			Endpoint: h.Host, TotalRepos: h.Total, CompletedRepos: h.Completed, FailedRepos: h.Failed, TotalRecords: h.Records,
		}
		var until time.Time
		one.State, until = s.hostState(job, h)
		one.PausedUntil = known(stamp(until), !until.IsZero())
		body.Hosts = append(body.Hosts, one)
	}
	return ok(body), nil
}

// hostState is how it stands with a host as far as the job is concerned.
func (s *Server) hostState(job store.Job, h store.JobHost) (HostState, time.Time) {
	switch {
	case h.Left() <= 0:
		return hostDone, time.Time{}
	case job.Status.Final(), job.Status == store.StatusPaused:
		return hostStopped, time.Time{}
	case s.cfg.Hosts == nil:
		return HostActive, time.Time{}
	default:
		return s.cfg.Hosts.HostState(h.Host)
	}
}
