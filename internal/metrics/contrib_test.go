package metrics

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/VictoriaMetrics/metricsql"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/google/uuid"
	dto "github.com/prometheus/client_model/go"
	"go.yaml.in/yaml/v3"

	"appview/internal/network"
	"appview/store"
	"appview/store/jobs"
	"appview/store/storetest"
)

// known is every series there can be, with the values of its labels.
func known(t *testing.T) map[string]map[string][]string {
	t.Helper()
	st := storetest.Open(t)
	const tracked = "com.example.note"
	err := st.Collections.Track(t.Context(), tracked)
	job := jobs.Job{}
	if err == nil {
		job, err = st.Jobs.CreateJob(t.Context(), uuid.New(), jobs.Request{Collection: tracked}, []syntax.NSID{tracked})
	}
	if err == nil {
		_, err = st.Jobs.StartJob(t.Context(), job.Seq)
	}
	if err == nil {
		err = st.Work.EndDiscovery(t.Context(), job.Seq, "")
	}
	if err == nil {
		_, err = st.Jobs.FinishJob(t.Context(), job.Seq, func(jobs.Job) string { return "" })
	}
	if err != nil {
		t.Fatal(err)
	}
	m := watching(t, st)
	m.Commit(store.Commit{Changes: 1, Took: time.Millisecond})
	for _, code := range codes {
		for _, kind := range network.Kinds() {
			m.Exchange(network.Exchange{Kind: kind, Status: code})
		}
		m.Answered("/health", http.MethodGet, code, time.Millisecond)
	}
	m.Exchange(network.Exchange{Kind: network.KindPDS})
	series := map[string]map[string][]string{"up": {}}
	for name, f := range gather(t, m) {
		names := []string{name}
		if f.GetType() == dto.MetricType_HISTOGRAM {
			names = []string{name + "_bucket", name + "_sum", name + "_count"}
		}
		for _, n := range names {
			labels := map[string][]string{"job": nil, "instance": nil}
			for _, one := range f.GetMetric() {
				for _, l := range one.GetLabel() {
					labels[l.GetName()] = append(labels[l.GetName()], l.GetValue())
				}
			}
			if strings.HasSuffix(n, "_bucket") {
				labels["le"] = nil
			}
			series[n] = labels
		}
	}
	return series
}

// checkQuery fails unless every series and label of a query exists.
func checkQuery(t *testing.T, series map[string]map[string][]string, where, query string) {
	t.Helper()
	query = strings.NewReplacer("$__rate_interval", "5m", "$job", "appview", "$instance", ".*").Replace(query)
	parsed, err := metricsql.Parse(query)
	if err != nil {
		t.Errorf("%s: %q: %v", where, query, err)
		return
	}
	found := false
	metricsql.VisitAll(parsed, func(e metricsql.Expr) {
		m, is := e.(*metricsql.MetricExpr)
		if !is {
			return
		}
		found = true
		for _, filters := range m.LabelFilterss {
			name := filters[0].Value
			labels, exists := series[name]
			if filters[0].Label != "__name__" || !exists {
				t.Errorf("%s: there is no series %s", where, name)
				return
			}
			for _, f := range filters[1:] {
				values, exists := labels[f.Label]
				if !exists && name != "up" {
					t.Errorf("%s: %s has no label %s", where, name, f.Label)
				}
				if len(values) == 0 || f.IsRegexp && f.Label == "instance" {
					continue
				}
				for v := range strings.SplitSeq(f.Value, "|") {
					if !slices.Contains(values, v) {
						t.Errorf("%s: %s is never %s=%q", where, name, f.Label, v)
					}
				}
			}
		}
	})
	if !found {
		t.Errorf("%s: %q asks for nothing", where, query)
	}
}

func TestAlertRulesAskForWhatThereIs(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("what is known of the process differs elsewhere")
	}
	var file struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert, Expr, For string
				Labels           struct{ Severity string }
				Annotations      struct{ Summary, Description string }
			}
		}
	}
	dec := yaml.NewDecoder(open(t, "prometheus/alerts.yml"))
	dec.KnownFields(true)
	if err := dec.Decode(&file); err != nil {
		t.Fatal(err)
	}
	series, seen := known(t), map[string]bool{}
	for _, group := range file.Groups {
		for _, rule := range group.Rules {
			checkQuery(t, series, rule.Alert, rule.Expr)
			if rule.For != "" {
				if _, err := time.ParseDuration(rule.For); err != nil {
					t.Errorf("%s: for %v", rule.Alert, err)
				}
			}
			if seen[rule.Alert] || !strings.HasPrefix(rule.Alert, "Appview") || rule.Annotations.Summary == "" || rule.Annotations.Description == "" ||
				!slices.Contains([]string{"warning", "critical"}, rule.Labels.Severity) {
				t.Errorf("rule %+v", rule)
			}
			seen[rule.Alert] = true
		}
	}
	if len(seen) < 10 {
		t.Errorf("only %d rules were found", len(seen))
	}
}

func TestDashboardAsksForWhatThereIs(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("what is known of the process differs elsewhere")
	}
	var board struct {
		Panels []struct {
			ID          int
			Title, Type string
			Targets     []struct{ Expr string }
		}
	}
	if err := json.NewDecoder(open(t, "grafana/dashboard.json")).Decode(&board); err != nil {
		t.Fatal(err)
	}
	series, shown, ids := known(t), "", map[int]bool{}
	for _, p := range board.Panels {
		if ids[p.ID] || p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %d %s: its id is taken, or it shows nothing", p.ID, p.Title)
		}
		ids[p.ID] = true
		for _, target := range p.Targets {
			checkQuery(t, series, p.Title, target.Expr)
			shown += target.Expr + "\n"
		}
	}
	for name := range series {
		base := strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(name, "_bucket"), "_sum"), "_count")
		if strings.HasPrefix(name, namespace) && !strings.Contains(shown, base) && name != "appview_build_info" && name != "appview_disk_full" {
			t.Errorf("no panel shows %s", name)
		}
	}
}

func open(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.Open(filepath.Join("..", "..", "contrib", path))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}
