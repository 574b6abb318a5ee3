package backfill

import (
	"sync"
	"time"

	"appview/internal/api"
	"appview/store/jobs"
)

// Progress tells what a job waits for, if anything, and how fast it settles
// repos and finds records at the moment.
func (b *Backfill) Progress(job jobs.Job) (waiting api.Waiting, reposPerSecond, recordsPerSecond float64) {
	if job.Status != api.StatusRunning {
		return "", 0, 0 // it waits for nothing: it has ended, rests, or is about to
	}
	b.mu.Lock()
	w := b.workers[job.ID]
	b.mu.Unlock()
	if w == nil {
		return api.WaitingQueue, 0, 0
	}
	reposPerSecond, recordsPerSecond = w.rate.now(b.now())
	waiting, _ = w.waits()
	return waiting, reposPerSecond, recordsPerSecond
}

// Waits is the job's wait for the relay or the directory, if it waits for one of these.
func (b *Backfill) Waits(job jobs.Job) (host string, since, until time.Time, answer string) {
	b.mu.Lock()
	w := b.workers[job.ID]
	b.mu.Unlock()
	if w == nil || job.Status != api.StatusRunning {
		return "", time.Time{}, time.Time{}, ""
	}
	_, wait := w.waits()
	return string(wait.Host), wait.Since, wait.Until, wait.Answer
}

// waits is what the worker waits for.
func (w *worker) waits() (what api.Waiting, wait Wait) {
	now := w.b.now()
	relay, forRelay := w.relay.now(now)
	directory, forDirectory := w.directory.now(now)
	switch {
	case w.b.cfg.Store.DiskFull():
		return api.WaitingDisk, wait
	case w.b.cfg.Network.Outage():
		return api.WaitingNetwork, wait
	case forRelay:
		return api.WaitingRelay, relay
	case forDirectory:
		return api.WaitingDirectory, directory
	case w.queues.parked():
		return api.WaitingHosts, wait
	default:
		return "", wait
	}
}

// Buffered is how many bytes of records are read and not committed.
func (b *Backfill) Buffered() int64 { return b.buffered.Load() }

// rateWindow is the time over which speed is measured.
const rateWindow = 10 // seconds

// rate counts what was settled in each of the last seconds.
type rate struct {
	mu      sync.Mutex
	second  [rateWindow]int64 // since 1970, of the count beside it
	repos   [rateWindow]int
	records [rateWindow]int
	first   int64
}

func (r *rate) add(now time.Time, records int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := now.Unix()
	i := s % rateWindow
	if r.second[i] != s {
		r.second[i], r.repos[i], r.records[i] = s, 0, 0
	}
	if r.first == 0 {
		r.first = s
	}
	r.repos[i]++
	r.records[i] += records
}

func (r *rate) now(now time.Time) (repos, records float64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := now.Unix()
	for i := range rateWindow {
		if age := s - r.second[i]; age >= 0 && age < rateWindow {
			repos += float64(r.repos[i])
			records += float64(r.records[i])
		}
	}
	window := float64(min(max(s-r.first+1, 1), rateWindow))
	return repos / window, records / window
}
