package metrics

import (
	"context"
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"appview/internal/api"
	"appview/internal/network"
	"appview/internal/network/outcome"
	"appview/store"
	"appview/store/jobs"
)

// Jobs tells how jobs go on.
type Jobs interface {
	// Progress tells what an unfinished job waits for, if it waits.
	Progress(job jobs.Job) (waiting api.Waiting, reposPerSecond, recordsPerSecond float64)
	// Buffered is how many bytes of records are read and not committed.
	Buffered() int64
}

// Network tells how it stands with hosts.
type Network interface {
	Census() map[network.Kind]network.Census
	Outage() bool
}

// Clients tells what clients take of the server.
type Clients interface {
	// Streams is how many streams of events run.
	Streams() int
	// AnswerBytes is how many bytes the answers under way take.
	AnswerBytes() int64
	// AnswersCut is how many answers were cut off since others waited for their room.
	AnswersCut() uint64
}

// Sources are what is looked at whenever Prometheus asks.
type Sources struct {
	Store   *store.Store
	Jobs    Jobs
	Network Network
	Clients Clients
}

// maxTracked bounds the collections with series of their own.
const maxTracked = 100

// Watch has the series of what the sources hold answered too. It is called once.
func (m *Metrics) Watch(s Sources) error {
	return m.registry.Register(newKept(s))
}

// kept is a collector of what the sources hold at the moment of asking.
type kept struct {
	Sources

	jobs, waiting, repos, records                                *prometheus.Desc
	indexRecords, indexRepos, changes, tracked, synced, indexLag *prometheus.Desc
	fileBytes, freeBytes, freeDisk, diskFull, queued, buffer     *prometheus.Desc
	hosts, outage, streams, answerBytes, answersCut              *prometheus.Desc
}

func newKept(s Sources) *kept {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(prometheus.BuildFQName(namespace, "", name), help, labels, nil)
	}
	return &kept{
		Sources: s,

		jobs:    desc("jobs", "Jobs there are, by status.", "status"),
		waiting: desc("jobs_waiting", "Unfinished jobs that wait, by what for.", "for"),
		repos:   desc("repos_settled_total", "Repos settled by all jobs there ever were, by outcome; one that was settled by two jobs counts twice.", "class", "reason"),
		records: desc("records_settled_total", "Records of settled repos, over all jobs there ever were, by what became of them in the index.", "change"),

		indexRecords: desc("index_records", "Records that are served."),
		indexRepos:   desc("index_repos", "Repos of which the index ever held a record."),
		changes:      desc("changes_total", "Changes of the index there ever were."),
		tracked:      desc("collection_records", "Records that are served of a tracked collection.", "collection"),
		synced:       desc("collection_synced_timestamp_seconds", "When the last complete job over a tracked collection began: what is served of it is no older.", "collection"),
		indexLag:     desc("key_index_lag_changes", "Changes that the order by record key is behind, in the collection where it is most."),

		fileBytes: desc("database_bytes", "Size of the database file."),
		freeBytes: desc("database_free_bytes", "Bytes in the database file that are free, to be used before it grows."),
		freeDisk:  desc("disk_free_bytes", "Bytes free on the disk that holds the database."),
		diskFull:  desc("disk_full", "1 while writes wait for room on the disk."),
		queued:    desc("writer_queue_changes", "Changes that wait for the writer."),
		buffer:    desc("backfill_buffered_bytes", "Bytes of records that were read from hosts and are not committed."),

		hosts:   desc("hosts", "Hosts talked to lately, by what they are to us and whether they may be asked: active, parked (asked for a pause), down.", "kind", "state"),
		outage:  desc("network_outage", "1 while this machine's own network is gone."),
		streams: desc("event_streams", "Streams of events that run."),

		answerBytes: desc("answer_bytes", "Bytes that answers under way take."),
		answersCut:  desc("answers_cut_total", "Answers cut off since the start, since their clients took them slowly and others waited for the room."),
	}
}

// Describe names the series.
func (k *kept) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		k.jobs, k.waiting, k.repos, k.records, k.indexRecords, k.indexRepos, k.changes, k.tracked, k.synced, k.indexLag,
		k.fileBytes, k.freeBytes, k.freeDisk, k.diskFull, k.queued, k.buffer, k.hosts, k.outage, k.streams, k.answerBytes, k.answersCut,
	} {
		ch <- d
	}
}

// Collect looks at the sources.
func (k *kept) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	out := output(ch)
	if err := k.collectJobs(ctx, out); err != nil {
		out.fail(k.jobs, err)
	}
	if err := k.collectStore(ctx, out); err != nil {
		out.fail(k.fileBytes, err)
	}
	for kind, n := range k.Network.Census() {
		out.gauge(k.hosts, float64(n.Known-n.Parked-n.Down), string(kind), "active")
		out.gauge(k.hosts, float64(n.Parked), string(kind), "parked")
		out.gauge(k.hosts, float64(n.Down), string(kind), "down")
	}
	out.gauge(k.outage, flag(k.Network.Outage()))
	out.gauge(k.buffer, float64(k.Jobs.Buffered()))
	out.gauge(k.streams, float64(k.Clients.Streams()))
	out.gauge(k.answerBytes, float64(k.Clients.AnswerBytes()))
	out.counter(k.answersCut, float64(k.Clients.AnswersCut()))
}

// collectJobs tells of the jobs there are, and of what all that there ever were have
// settled.
func (k *kept) collectJobs(ctx context.Context, out output) error {
	jobs, err := k.Store.Jobs.List(ctx)
	if err != nil {
		return err
	}
	totals, err := k.Store.Jobs.Totals(ctx)
	if err != nil {
		return err
	}
	statuses, waiting, reasons := map[string]int64{}, map[string]int64{}, map[string]int64{}
	for _, s := range api.Statuses() {
		statuses[string(s)] = 0
	}
	for _, w := range api.Waits() {
		waiting[string(w)] = 0
	}
	for _, r := range outcome.Reasons() {
		reasons[string(r)] = 0
	}
	for _, j := range jobs {
		statuses[string(j.Status)]++
		if !j.Status.Final() {
			if what, _, _ := k.Jobs.Progress(j); what != "" {
				waiting[string(what)]++
			}
		}
	}
	for r, n := range totals.Reasons {
		if !slices.Contains(outcome.Reasons(), outcome.Reason(r)) {
			r = other // of a program that knew more
		}
		reasons[r] += n
	}
	for s, n := range statuses {
		out.gauge(k.jobs, float64(n), s)
	}
	for w, n := range waiting {
		out.gauge(k.waiting, float64(n), w)
	}
	for r, n := range reasons {
		out.counter(k.repos, float64(n), string(outcome.Reason(r).Class()), r)
	}
	t := totals.Tally
	for change, n := range map[string]int64{
		"created": t.Created, "updated": t.Updated, "deleted": t.Deleted, "unchanged": t.Unchanged(), "rejected": t.Rejected,
	} {
		out.counter(k.records, float64(n), change)
	}
	return nil
}

func (k *kept) collectStore(ctx context.Context, out output) error {
	st, err := k.Store.Stats(ctx)
	if err != nil {
		return err
	}
	var records int64
	for _, n := range st.Collections {
		records += n.Records
	}
	out.gauge(k.indexRecords, float64(records))
	out.gauge(k.indexRepos, float64(st.Repos))
	out.counter(k.changes, float64(st.Seq))
	out.gauge(k.fileBytes, float64(st.FileBytes))
	out.gauge(k.freeBytes, float64(st.FreeBytes))
	out.gauge(k.diskFull, flag(k.Store.DiskFull()))
	tracked, err := k.Store.Collections.Tracked(ctx)
	if err != nil {
		return err
	}
	for _, c := range tracked[:min(len(tracked), maxTracked)] {
		out.gauge(k.tracked, float64(st.Collections[c].Records), c.String())
		fresh, err := k.Store.Collections.Freshness(ctx, c)
		if err != nil {
			return err
		}
		if !fresh.SyncedAt.IsZero() {
			out.gauge(k.synced, float64(fresh.SyncedAt.Unix()), c.String())
		}
	}
	load, err := k.Store.Load(ctx)
	if err != nil {
		return err
	}
	out.gauge(k.queued, float64(load.Queued))
	out.gauge(k.indexLag, float64(load.IndexLag))
	out.gauge(k.freeDisk, float64(load.FreeDisk))
	return nil
}

func flag(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// output is where a collector puts what it finds.
type output chan<- prometheus.Metric

func (o output) gauge(d *prometheus.Desc, v float64, labels ...string) {
	o <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func (o output) counter(d *prometheus.Desc, v float64, labels ...string) {
	o <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
}

func (o output) fail(d *prometheus.Desc, err error) { o <- prometheus.NewInvalidMetric(d, err) }
