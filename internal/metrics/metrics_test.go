package metrics

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"

	"appview/internal/api"
	"appview/internal/network"
	"appview/store"
	"appview/store/jobs"
	"appview/store/storetest"
)

// still is a server in which nothing goes on.
type still struct{ waiting api.Waiting }

func (s still) Progress(jobs.Job) (api.Waiting, float64, float64) { return s.waiting, 0, 0 }
func (still) Buffered() int64                                     { return 11 }
func (still) Outage() bool                                        { return true }
func (still) Streams() int                                        { return 13 }
func (still) AnswerBytes() int64                                  { return 14 }
func (still) AnswersCut() uint64                                  { return 15 }
func (still) Census() map[network.Kind]network.Census {
	return map[network.Kind]network.Census{network.KindRelay: {}, network.KindPLC: {}, network.KindPDS: {Known: 9, Parked: 2, Down: 3}}
}

// watching are the metrics of a process that has the store open.
func watching(t *testing.T, st *store.Store) *Metrics {
	t.Helper()
	m := New("v-test")
	s := still{waiting: "hosts"}
	if err := m.Watch(Sources{Store: st, Jobs: s, Network: s, Clients: s}); err != nil {
		t.Fatal(err)
	}
	return m
}

// gather is every family by its name.
func gather(t *testing.T, m *Metrics) map[string]*dto.MetricFamily {
	t.Helper()
	list, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]*dto.MetricFamily{}
	for _, f := range list {
		all[f.GetName()] = f
	}
	return all
}

// value is that of the series with the label values, in any order.
func value(t *testing.T, m *Metrics, name string, labels ...string) float64 {
	t.Helper()
	for _, one := range gather(t, m)[name].GetMetric() {
		found := 0
		for _, l := range one.GetLabel() {
			for _, want := range labels {
				if l.GetValue() == want {
					found++
				}
			}
		}
		if found == len(labels) {
			return one.GetGauge().GetValue() + one.GetCounter().GetValue()
		}
	}
	t.Errorf("there is no %s %v", name, labels)
	return -1
}

func TestWhatTheDatabaseHoldsIsCountedOnce(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "appview.db")
	check := func(st *store.Store) {
		m := watching(t, st)
		for _, c := range []struct {
			name   string
			labels []string
			want   float64
		}{
			{"appview_repos_settled_total", []string{"failed", "timeout"}, 2},
			{"appview_repos_settled_total", []string{"unavailable", "deleted"}, 0},
			{"appview_repos_settled_total", []string{"failed", "other"}, 1},
			{"appview_jobs", []string{"running"}, 2},
			{"appview_jobs", []string{"failed"}, 0},
			{"appview_jobs_waiting", []string{"hosts"}, 2},
			{"appview_jobs_waiting", []string{"disk"}, 0},
			{"appview_records_settled_total", []string{"created"}, 0},
			{"appview_collection_records", []string{"com.example.note"}, 0},
			{"appview_hosts", []string{"pds", "active"}, 4},
			{"appview_hosts", []string{"pds", "parked"}, 2},
			{"appview_hosts", []string{"pds", "down"}, 3},
			{"appview_network_outage", nil, 1},
			{"appview_event_streams", nil, 13},
			{"appview_answer_bytes", nil, 14},
			{"appview_answers_cut_total", nil, 15},
			{"appview_backfill_buffered_bytes", nil, 11},
			{"appview_build_info", []string{"v-test"}, 1},
		} {
			if got := value(t, m, c.name, c.labels...); got != c.want {
				t.Errorf("%s %v is %g, want %g", c.name, c.labels, got, c.want)
			}
		}
		if got := value(t, m, "appview_database_bytes"); got < 1<<10 {
			t.Errorf("the database has %g bytes", got)
		}
	}
	st, err := store.Open(store.Config{Path: path, FlushEvery: time.Millisecond, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Collections.Track(t.Context(), "com.example.note"); err != nil {
		t.Fatal(err)
	}
	for i, reason := range []string{"timeout", "timeout", "of a later version"} {
		settle(t, st, i, reason)
	}
	check(st)
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	// The next process shows the same, and not twice as much.
	check(storetest.OpenPath(t, path))
}

// settle gives a repo up, in one of two jobs.
func settle(t *testing.T, st *store.Store, i int, reason string) {
	t.Helper()
	ctx, did := t.Context(), syntax.DID(fmt.Sprintf("did:web:%d.example.com", i))
	jobList, err := st.Jobs.List(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if len(jobList) <= i%2 {
		if _, err := st.Jobs.CreateJob(ctx, uuid.New(), jobs.Request{}, nil); err != nil {
			t.Fatal(err)
		}
		settle(t, st, i, reason)
		return
	}
	job := jobList[i%2]
	if _, err := st.Work.Discover(ctx, job.Seq, jobs.Discovery{Listing: "test", DIDs: []syntax.DID{did}}); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	err = st.Work.Settle(ctx, job.Seq, jobs.Settlement{
		DID: did, Verdict: jobs.Verdict{Class: jobs.ClassFailed, Reason: reason},
	}, func(err error) { done <- err })
	if err == nil {
		err = <-done
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestLabelsAreBounded(t *testing.T) {
	t.Parallel()
	m := New("v-test")
	for i := range 5000 {
		m.Exchange(network.Exchange{Kind: network.KindPDS, Status: i - 1000})
		m.Answered("", fmt.Sprintf("BREW%d", i), i-1000, time.Millisecond)
	}
	all := gather(t, m)
	for _, name := range []string{"appview_host_requests_total", "appview_http_requests_total"} {
		if n := len(all[name].GetMetric()); n > len(codes)+12 {
			t.Errorf("%s has %d series", name, n)
		}
	}
	for status, want := range map[int]string{0: "none", 200: "200", 299: "2xx", 429: "429", 499: "4xx", 530: "530", 599: "5xx", 600: "other", -1: "other", 99: "other"} {
		if got := codeOf(status); got != want {
			t.Errorf("%d is counted as %s, want %s", status, got, want)
		}
	}
}

func TestSeriesAreNamedAsPrometheusLikesThem(t *testing.T) {
	t.Parallel()
	m := watching(t, storetest.Open(t))
	m.Commit(store.Commit{Changes: 1, Bytes: 2, Took: time.Millisecond})
	srv := httptest.NewServer(m.Handler(slog.New(slog.DiscardHandler)))
	defer srv.Close()
	problems, err := promlint.New(strings.NewReader(fetch(t, srv.URL))).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestWhatCannotBeReadIsLeftOutAndLogged(t *testing.T) {
	t.Parallel()
	st, err := store.Open(store.Config{
		Path: filepath.Join(t.TempDir(), "appview.db"), Log: slog.New(slog.DiscardHandler),
		FreeSpace: func(string) (uint64, error) { return 0, errors.New("no such disk") },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = st.Close() }()
	var log strings.Builder
	srv := httptest.NewServer(watching(t, st).Handler(slog.New(slog.NewTextHandler(&log, nil))))
	text := fetch(t, srv.URL)
	srv.Close()
	if strings.Contains(text, "appview_disk_free_bytes ") || !strings.Contains(text, "appview_jobs{") {
		t.Errorf("got\n%s", text)
	}
	if !strings.Contains(log.String(), "no such disk") {
		t.Errorf("logged:\n%s", &log)
	}
}

func TestServeAnswersProfiles(t *testing.T) {
	t.Parallel()
	m := New("v-test")
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- m.Serve(ctx, l, func(h http.Handler) http.Handler { return h }, slog.New(slog.DiscardHandler))
	}()
	url := "http://" + l.Addr().String()
	if text := fetch(t, url+"/metrics"); !strings.Contains(text, "appview_build_info{") {
		t.Errorf("got\n%s", text)
	}
	if text := fetch(t, url+"/debug/pprof/goroutine?debug=1"); !strings.Contains(text, "goroutine profile") {
		t.Errorf("got\n%.200s", text)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func fetch(t *testing.T, url string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultTransport.RoundTrip(req) //nolint:forbidigo // no client is needed for one request
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%s: %d %v", url, res.StatusCode, err)
	}
	return string(body)
}
