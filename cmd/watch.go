package cmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"appview/cmd/term"
	"appview/internal/api"
)

const (
	// watchEvery is how often a job is looked at where no events come through.
	watchEvery = 500 * time.Millisecond
	// watchStreams is how often in a row events are tried before that.
	watchStreams = 3
	// watchLost is how long a server may be away before it is watched no more: long
	// enough to be started again.
	watchLost = time.Minute
	// hostsEvery is how often the hosts of a watched job are looked at. A job may have
	// thousands: a look takes at most hostsShare of the time.
	hostsEvery = 3 * time.Second
	hostsShare = 20
)

// watching is how a job is watched. Zero values mean the defaults.
type watching struct {
	every time.Duration // watchEvery
	lost  time.Duration // watchLost
}

// watch shows a job until it is final, and returns it: as the server sends it, or,
// where something on the way keeps its events back, by asking again and again. A
// server that goes away is waited for: the job goes on when it is there again.
func (c *client) watch(ctx context.Context, show term.Display, id string, how watching) (term.Job, error) {
	if how.every == 0 {
		how.every = watchEvery
	}
	if how.lost == 0 {
		how.lost = watchLost
	}
	defer show.End()
	hostsCtx, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() { defer close(ended); c.watchHosts(hostsCtx, show, id) }()
	defer func() { stop(); <-ended }()

	tick := time.NewTicker(how.every)
	defer tick.Stop()
	var lostAt time.Time
	seen, streams := false, watchStreams
	saw := func(j term.Job, raw json.RawMessage) {
		if !lostAt.IsZero() {
			show.Lost(false)
			lostAt, streams = time.Time{}, watchStreams
		}
		seen = true
		show.Job(j, raw)
	}
	for {
		if streams > 0 {
			streams--
			if j, err := c.follow(ctx, id, eventPatience, saw); err == nil {
				return j, nil
			}
		}
		var j term.Job
		raw, err := c.get(ctx, jobPath(id), &j)
		switch {
		case ctx.Err() != nil:
			return j, fmt.Errorf("no longer watched: the job goes on, see it with %s", c.again(id))
		case err == nil:
			saw(j, raw)
			if j.Status.Final() {
				return j, nil
			}
		case !seen || !mayPass(err):
			return j, err
		case lostAt.IsZero():
			lostAt = time.Now()
			show.Lost(true)
		case time.Since(lostAt) > how.lost:
			return j, fmt.Errorf("the server has not answered for %s, the job goes on when it runs again: %w", term.Span(int64(how.lost.Seconds())), err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// mayPass reports whether an error says that a server is away, or stops: not that it
// refuses.
func mayPass(err error) bool {
	var answer answerError
	if !errors.As(err, &answer) {
		return true
	}
	switch answer.status {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	default:
		return false
	}
}

// watchHosts shows the hosts of a job until ctx ends.
func (c *client) watchHosts(ctx context.Context, show term.Display, id string) {
	for wait := hostsEvery / 3; ; {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
		began := time.Now()
		var list api.Hosts
		if _, err := c.get(ctx, jobPath(id, "pds-summary"), &list); err == nil { // else the job's own state says more
			show.Hosts(list.Hosts)
		}
		wait = max(hostsEvery, hostsShare*time.Since(began))
	}
}

func newWatchCommand(p *program, o *clientOptions) *cobra.Command {
	return &cobra.Command{
		Use:   "watch [ID]",
		Short: "Show how a job goes on until it ends",
		Long: `Watch shows the job, or without an ID the one that was created last, until it ends:
its progress and speed, the hosts that are down or asked for a pause, and what could
not be read. On a terminal that changes in place; elsewhere it is a line now and then,
and one when a host's state changes. With --json every state of the job is a line of
JSON, the last one the final state.

A server that goes away meanwhile is waited for, a minute at most. Ctrl-C ends the
watching, not the job.`,
		Example: `  appview backfill watch
  appview backfill watch 6c0e8a3e
  appview backfill watch 6c0e8a3e --json | tail -n 1`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, id, err := p.jobClient(cmd, o, args)
			if err != nil {
				return err
			}
			return p.watchJob(cmd, c, o, id)
		},
	}
}

// watchJob shows a job to its end, and what it came to.
func (p *program) watchJob(cmd *cobra.Command, c *client, o *clientOptions, id string) error {
	if o.json {
		j, err := c.watch(cmd.Context(), term.NewJSONDisplay(cmd.OutOrStdout()), id, watching{})
		if err != nil {
			return err
		}
		return j.Err()
	}
	out := cmd.OutOrStdout()
	j, err := c.watch(cmd.Context(), term.NewDisplay(out, p.env("TERM")), id, watching{})
	if err != nil {
		return err
	}
	var again term.Job
	if _, err := c.get(cmd.Context(), jobPath(id), &again); err != nil {
		return err
	}
	if err := printJob(out, again); err != nil {
		return err
	}
	return j.Err()
}
