//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// TestDocumentedJavaScript runs the three calls as JavaScript writes them.
func TestDocumentedJavaScript(t *testing.T) {
	t.Parallel()
	parts := installedParts(t)
	// A relay that answers nothing keeps the job running until it is cancelled.
	silent := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	x := startIndex(t, silent, silent)

	parts.show(t, "docs.mjs")
	p := parts.node(t, "docs", []string{"APPVIEW_URL=" + string(x.endpoint), "APPVIEW_KEY=" + adminKey}, "docs.mjs")
	if err := p.wait(); err != nil {
		t.Fatalf("the documentation's JavaScript: %v\n%s", err, p.tail())
	}

	type answer struct {
		Status int            `json:"status"`
		Data   map[string]any `json:"data"`
	}
	type answers struct {
		Status int              `json:"status"`
		Data   []map[string]any `json:"data"`
	}
	var said struct {
		Created, Cancelled answer
		Running, After     answers
	}
	lines := strings.Split(p.tail(), "\n")
	if err := decode([]byte(lines[len(lines)-1]), &said); err != nil {
		t.Fatalf("what the JavaScript printed: %v\n%s", err, p.tail())
	}
	id := fmt.Sprint(said.Created.Data["id"])
	if want := map[string]any{"id": id, "status": "running"}; said.Created.Status != http.StatusCreated || !maps.Equal(said.Created.Data, want) {
		t.Errorf("create answered %d %s", said.Created.Status, compact(said.Created.Data))
	}
	if want := map[string]any{"id": id, "status": "cancelling"}; said.Cancelled.Status != http.StatusOK || !maps.Equal(said.Cancelled.Data, want) {
		t.Errorf("cancel answered %d %s", said.Cancelled.Status, compact(said.Cancelled.Data))
	}
	requireOneJob(t, said.Running.Status, said.Running.Data, id, "running")
	requireOneJob(t, said.After.Status, said.After.Data, id, "cancelling", "cancelled")

	ctx, cancel := context.WithTimeout(t.Context(), startLimit)
	defer cancel()
	if err := eventually(ctx, func(ctx context.Context) error {
		var j job
		if err := x.get(ctx, "/admin/backfill/"+id, nil, bearer(adminKey), &j); err != nil {
			return err
		}
		if j.Status != "cancelled" || j.Stage != "cancelled" || j.CompletedAt == nil {
			return fmt.Errorf("job is at %s", compact(j))
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

// requireOneJob checks the answer of GET /admin/backfill/status: one job with
// the twelve members and one of the statuses.
func requireOneJob(t *testing.T, status int, jobs []map[string]any, id string, statuses ...string) {
	t.Helper()
	if status != http.StatusOK || len(jobs) != 1 {
		t.Errorf("list answered %d %s, want one job", status, compact(jobs))
		return
	}
	members := []string{
		"collection", "completed_at", "created_at", "did", "error", "id", "processed_repos",
		"stage", "started_at", "status", "total_records", "total_repos",
	}
	j := jobs[0]
	if got := slices.Sorted(maps.Keys(j)); !slices.Equal(got, members) {
		t.Errorf("a job has the members %v, want %v", got, members)
	}
	if j["id"] != id || j["collection"] != "xyz.statusphere.status" || j["did"] != nil || !slices.Contains(statuses, fmt.Sprint(j["status"])) {
		t.Errorf("list shows %s, want job %s to be one of %v", compact(j), id, statuses)
	}
}
