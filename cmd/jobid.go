package cmd

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"appview/cmd/service"
	"appview/internal/api"
)

// jobPath is where a server has a job, or what belongs to it.
func jobPath(id string, rest ...string) string {
	return "/admin/backfill/" + strings.Join(append([]string{url.PathEscape(id)}, rest...), "/")
}

// jobClient finds the server, its key, and the job that a command line names; where
// it names none, the one that was created last.
func (p *program) jobClient(cmd *cobra.Command, o *clientOptions, args []string) (*client, string, error) {
	c, err := p.newClient(*o)
	if err != nil {
		return nil, "", err
	}
	if len(args) == 1 {
		id, err := c.jobID(cmd.Context(), args[0])
		return c, id, err
	}
	var jobs []api.Job
	if _, err := c.get(cmd.Context(), withQuery("/admin/backfill/status", "limit", "1"), &jobs); err != nil {
		return nil, "", err
	}
	if len(jobs) == 0 {
		return nil, "", errors.New(noJobs)
	}
	return c, jobs[0].ID.String(), nil
}

// jobID is the id of the job that a command line names.
func (c *client) jobID(ctx context.Context, name string) (string, error) {
	return fullID(name, "jobs", func() (ids []string, err error) {
		var jobs []api.Job
		if _, err = c.get(ctx, "/admin/backfill/status", &jobs); err != nil {
			return nil, err
		}
		for _, j := range jobs {
			ids = append(ids, j.ID.String())
		}
		return ids, nil
	})
}

// leastPrefix is how much of an id tells that it is the beginning of one.
const leastPrefix = 4

// fullID is the id that a command line names, by all of it or by a beginning that no
// other has. What no id begins with is left for the server to refuse.
func fullID(name, what string, all func() ([]string, error)) (string, error) {
	name = strings.ToLower(name)
	if _, err := uuid.Parse(name); err == nil || len(name) < leastPrefix || strings.Trim(name, "0123456789abcdef-") != "" {
		return name, nil
	}
	ids, err := all()
	if err != nil {
		return "", err
	}
	found := slices.DeleteFunc(ids, func(id string) bool { return !strings.HasPrefix(id, name) })
	switch len(found) {
	case 0:
		return name, nil
	case 1:
		return found[0], nil
	default:
		return "", service.Usagef("the ids of %d %s begin with %s: give more of it, as in %s", len(found), what, name, found[0])
	}
}
