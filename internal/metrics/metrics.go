package metrics

import (
	"log/slog"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"appview/internal/network"
	"appview/store"
)

// namespace begins the name of every series of ours.
const namespace = "appview"

const (
	// scrapeTimeout bounds one answer to Prometheus, and maxScrapes how many are
	// made at once: whoever asks needs no key.
	scrapeTimeout = 10 * time.Second
	maxScrapes    = 4
)

// Metrics counts what the process does, and answers Prometheus.
type Metrics struct {
	registry *prometheus.Registry

	requests       *prometheus.CounterVec
	requestSeconds *prometheus.HistogramVec
	commitSeconds  prometheus.Histogram
	commitChanges  prometheus.Histogram
	commitBytes    prometheus.Histogram
	answers        *prometheus.CounterVec
	answerSeconds  *prometheus.HistogramVec
}

// New makes the series of a process that runs the given version of the program.
func New(version string) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Name: "host_requests_total",
			Help: "Requests sent to other people's hosts since the start, by what the host is to us and HTTP status; none: there was no answer.",
		}, []string{"kind", "code"}),
		requestSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: namespace, Name: "host_request_duration_seconds",
			Help:    "How long other people's hosts took to answer, without what was waited for before out of politeness.",
			Buckets: []float64{0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300},
		}, []string{"kind"}),
		commitSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: namespace, Name: "commit_duration_seconds",
			Help:    "How long a commit to the database took, until it was safe on the disk.",
			Buckets: []float64{0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10},
		}),
		commitChanges: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: namespace, Name: "commit_changes",
			Help:    "Changes made in one commit.",
			Buckets: []float64{1, 2, 5, 10, 25, 50, 100, 250, 500, 1000},
		}),
		commitBytes: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: namespace, Name: "commit_bytes",
			Help:    "Bytes of records handed over to one commit.",
			Buckets: prometheus.ExponentialBuckets(4<<10, 4, 8),
		}),
		answers: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: namespace, Name: "http_requests_total",
			Help: "Requests answered since the start, by route, method and HTTP status; none: the connection broke first.",
		}, []string{"route", "method", "code"}),
		answerSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: namespace, Name: "http_request_duration_seconds",
			Help:    "How long it took until an answer began.",
			Buckets: []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60},
		}, []string{"route"}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: namespace, Name: "build_info", Help: "Always 1; its labels say what runs.",
		ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()},
	})
	build.Set(1)
	m.registry.MustRegister(
		m.requests, m.requestSeconds, m.commitSeconds, m.commitChanges, m.commitBytes, m.answers, m.answerSeconds, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	for _, kind := range network.Kinds() { // there from the start, so that rates are
		m.requestSeconds.WithLabelValues(string(kind))
		m.requests.WithLabelValues(string(kind), codeOf(http.StatusOK))
	}
	return m
}

// Exchange counts a request to a host. It is the Observe of network.Config.
func (m *Metrics) Exchange(e network.Exchange) {
	m.requests.WithLabelValues(string(e.Kind), codeOf(e.Status)).Inc()
	m.requestSeconds.WithLabelValues(string(e.Kind)).Observe(e.Took.Seconds())
}

// Commit counts a commit. It is the Observe of store.Config.
func (m *Metrics) Commit(c store.Commit) {
	m.commitSeconds.Observe(c.Took.Seconds())
	m.commitChanges.Observe(float64(c.Changes))
	m.commitBytes.Observe(float64(c.Bytes))
}

// Answered counts an answer to a request: the route, empty if there is none, the
// method as the client wrote it, the HTTP status, 0 if there was no answer, and how
// long it took until it began.
func (m *Metrics) Answered(route, method string, status int, took time.Duration) {
	if route == "" {
		route = other
	}
	m.answers.WithLabelValues(route, methodOf(method), codeOf(status)).Inc()
	m.answerSeconds.WithLabelValues(route).Observe(took.Seconds())
}

// Handler answers Prometheus. What cannot be read at the moment is left out of the
// answer, and logged.
func (m *Metrics) Handler(log *slog.Logger) http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn), ErrorHandling: promhttp.ContinueOnError,
		MaxRequestsInFlight: maxScrapes, Timeout: scrapeTimeout,
	})
}

// other is the label of what is not on a list.
const other = "other"

// codes are the statuses that are told apart. A host may answer with any number.
var codes = []int{ //nolint:gochecknoglobals // a table that is never changed
	200, 201, 204, 206, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404, 405, 408, 409, 410, 413, 421, 429,
	500, 501, 502, 503, 504, 507, 520, 521, 522, 523, 524, 525, 526, 530,
}

// codeOf is the label of an HTTP status: itself, or, as 4xx, those like it.
func codeOf(status int) string {
	switch {
	case status == 0:
		return "none"
	case slices.Contains(codes, status):
		return strconv.Itoa(status)
	case status >= 100 && status < 600:
		return strconv.Itoa(status/100) + "xx"
	default:
		return other
	}
}

// methodOf is the label of a method, which a client may make up.
func methodOf(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return method
	default:
		return other
	}
}
