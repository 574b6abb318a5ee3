package cmd

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"appview/cmd/term"
)

const (
	// eventPatience is how long the first event may take. A proxy that gathers
	// answers before it passes them on never passes this one on.
	eventPatience = 5 * time.Second
	// eventSilence is how long nothing may come after it: the server says that it
	// is there every 15 seconds.
	eventSilence = 40 * time.Second
	// maxEvent bounds a line of the stream. A job has about 1 KiB.
	maxEvent = 1 << 20
)

// errNoEvents says that a stream of events brought no final state.
var errNoEvents = errors.New("the stream of events ended early")

// follow shows a job's states as the server sends them, and returns the final one.
// Its errors say no more than that the job has to be followed in another way.
func (c *client) follow(ctx context.Context, id string, patience time.Duration, show func(term.Job, json.RawMessage)) (term.Job, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	late := time.AfterFunc(patience, cancel)
	defer late.Stop()
	res, err := c.send(ctx, http.MethodGet, jobPath(id, "events"), nil)
	if err != nil {
		return term.Job{}, err
	}
	defer func() { _ = res.Body.Close() }() // whatever comes after the final state
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, maxEvent)
	shown := false
	for lines.Scan() {
		if shown { // until then only what tells of the job counts
			late.Reset(eventSilence)
		}
		data, isData := strings.CutPrefix(lines.Text(), "data:")
		if !isData {
			continue
		}
		var j term.Job
		if err := decodeAnswer([]byte(data), &j); err != nil {
			return term.Job{}, err
		}
		late.Reset(eventSilence)
		shown = true
		show(j, json.RawMessage(data))
		if j.Status.Final() {
			return j, nil
		}
	}
	return term.Job{}, errors.Join(errNoEvents, ctx.Err(), lines.Err())
}
