//go:build e2e

package e2e

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	adminKey   = "hv_e2e_0123456789abcdef0123"
	jobLimit   = 2 * time.Minute
	showAtMost = 10 // differences that one comparison names
)

var stages = []string{"pending", "discovering_repos", "resolving_pds", "fetching_records", "completed"}

// index is the built program, running.
type index struct {
	endpoint
	process *process
}

// startIndex runs the program on an empty data directory.
func startIndex(t *testing.T, relay, plc endpoint) *index {
	t.Helper()
	bin := os.Getenv("E2E_APPVIEW_BIN")
	if bin == "" {
		t.Fatal("E2E_APPVIEW_BIN is not set: run this by make e2e, which builds the program")
	}
	port := freePorts(t, 1)[0]
	x := &index{endpoint: loopback(port)}
	x.process = start(t, "appview", []string{"APPVIEW_ADMIN_KEY=" + adminKey}, bin, "serve",
		"--listen", address(port), "--data-dir", t.TempDir(),
		"--relay", string(relay), "--plc", string(plc),
		"--allow-private-hosts", "--host-rps", "200", "--log-level", "debug")
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("end of the program's log:\n%s", x.process.tail())
		}
	})
	x.process.ready(t, func(ctx context.Context) error { return x.get(ctx, "/ready", nil, "", nil) })
	return x
}

// job is one row of GET /admin/backfill/status.
type job struct {
	ID             string  `json:"id"`
	Collection     *string `json:"collection"`
	DID            *string `json:"did"`
	Status         string  `json:"status"`
	Stage          string  `json:"stage"`
	TotalRepos     *int64  `json:"total_repos"`
	ProcessedRepos *int64  `json:"processed_repos"`
	TotalRecords   *int64  `json:"total_records"`
	Error          *string `json:"error"`
	StartedAt      *string `json:"started_at"`
	CompletedAt    *string `json:"completed_at"`
	CreatedAt      string  `json:"created_at"`
}

// create asks for a backfill and returns the job's id.
func (x *index) create(ctx context.Context, request map[string]any) (string, error) {
	var out map[string]any
	if err := x.post(ctx, "/admin/backfill", bearer(adminKey), request, &out); err != nil {
		return "", err
	}
	id, ok := out["id"].(string)
	if !ok || !reflect.DeepEqual(out, map[string]any{"id": id, "status": "running"}) {
		return "", fmt.Errorf("create %v: answer %s", request, compact(out))
	}
	return id, nil
}

// completed waits for the end of a job, which has to be a good one, and checks
// on the way that it only ever moves forward.
func (x *index) completed(ctx context.Context, id string) (job, error) {
	ctx, cancel := context.WithTimeout(ctx, jobLimit)
	defer cancel()
	var last job
	var wrong error
	err := eventually(ctx, func(ctx context.Context) error {
		var now job
		if err := x.get(ctx, "/admin/backfill/"+id, nil, bearer(adminKey), &now); err != nil {
			return err
		}
		wrong = forward(last, now)
		last = now
		if wrong == nil && now.Status == "running" {
			return fmt.Errorf("job is still at %s", compact(now))
		}
		return nil
	})
	if err != nil || wrong != nil {
		return last, cmp.Or(wrong, err)
	}
	if last.Status != "completed" || last.Error != nil || last.StartedAt == nil || last.CompletedAt == nil {
		return last, fmt.Errorf("job did not complete cleanly: %s", compact(last))
	}
	if last.TotalRepos == nil || last.ProcessedRepos == nil || last.TotalRecords == nil || *last.ProcessedRepos != *last.TotalRepos {
		return last, fmt.Errorf("counters of a completed job do not add up: %s", compact(last))
	}
	return last, nil
}

// forward checks one step between two looks at a job.
func forward(before, now job) error {
	at := slices.Index(stages, now.Stage)
	back := before.ID != "" && at < slices.Index(stages, before.Stage)
	for _, c := range [][2]*int64{
		{before.TotalRepos, now.TotalRepos},
		{before.ProcessedRepos, now.ProcessedRepos},
		{before.TotalRecords, now.TotalRecords},
	} {
		back = back || c[0] != nil && (c[1] == nil || *c[1] < *c[0])
	}
	if at < 0 || back {
		return fmt.Errorf("job moved from %s to %s", compact(before), compact(now))
	}
	return nil
}

// line is one record of the export.
type line struct {
	listed
	DID        string `json:"did"`
	Collection string `json:"collection"`
	RKey       string `json:"rkey"`
	Rev        string `json:"rev"`
	IndexedAt  string `json:"indexed_at"`
	raw        string
}

// export is every record of the index that matches the query, by its URI.
func (x *index) export(ctx context.Context, q url.Values) (map[string]line, error) {
	body, err := x.raw(ctx, "GET", "/admin/records/export?"+q.Encode(), bearer(adminKey), "", nil)
	if err != nil {
		return nil, err
	}
	if len(body) > 0 && !bytes.HasSuffix(body, []byte("\n")) {
		return nil, fmt.Errorf("export %s: the last line is cut", q.Encode())
	}
	lines := map[string]line{}
	for raw := range strings.Lines(string(body)) {
		l := line{raw: raw}
		if err := decode([]byte(raw), &l); err != nil {
			return nil, fmt.Errorf("export %s: line %.200q: %w", q.Encode(), raw, err)
		}
		if l.URI != "at://"+l.DID+"/"+l.Collection+"/"+l.RKey || l.Rev == "" {
			return nil, fmt.Errorf("export %s: members do not agree: %.200q", q.Encode(), raw)
		}
		if at, err := time.Parse(time.RFC3339, l.IndexedAt); err != nil || at.Format("2006-01-02T15:04:05Z") != l.IndexedAt {
			return nil, fmt.Errorf("export %s: indexed_at %q is no UTC time of whole seconds", q.Encode(), l.IndexedAt)
		}
		if _, twice := lines[l.URI]; twice {
			return nil, fmt.Errorf("export %s: %s is there twice", q.Encode(), l.URI)
		}
		lines[l.URI] = l
	}
	return lines, nil
}

// requestsToPDSes is how many requests to PDSes the program has sent, by its metrics.
func (x *index) requestsToPDSes(t *testing.T) (n float64) {
	t.Helper()
	body, err := x.raw(t.Context(), "GET", "/metrics", "", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(body)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "} ")
		if !strings.HasPrefix(name, "appview_host_requests_total{") || !strings.Contains(name, `kind="pds"`) {
			continue
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			t.Fatalf("metric %q: %v", line, err)
		}
		n += v
	}
	return n
}

// compare names what is missing, extra or different in the index.
func compare(truth map[string]listed, index map[string]line) error {
	var wrong []string
	for _, uri := range slices.Sorted(maps.Keys(truth)) {
		want := truth[uri]
		got, ok := index[uri]
		switch {
		case !ok:
			wrong = append(wrong, "missing "+uri)
		case got.CID != want.CID:
			wrong = append(wrong, "cid of "+uri+" is "+got.CID+", at the PDS "+want.CID)
		case !reflect.DeepEqual(got.Value, want.Value):
			wrong = append(wrong, "value of "+uri+" is "+compact(got.Value)+", at the PDS "+compact(want.Value))
		}
	}
	for _, uri := range slices.Sorted(maps.Keys(index)) {
		if _, ok := truth[uri]; !ok {
			wrong = append(wrong, "extra "+uri)
		}
	}
	if len(wrong) == 0 {
		return nil
	}
	shown := wrong[:min(len(wrong), showAtMost)]
	return fmt.Errorf("index (%d records) and PDSes (%d records) differ in %d places:\n%s",
		len(index), len(truth), len(wrong), strings.Join(shown, "\n"))
}
