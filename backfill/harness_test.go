package backfill_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"net/http"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/backfill"
	"appview/internal/api"
	"appview/internal/network"
	"appview/internal/sandbox"
	"appview/internal/sandbox/sandboxtest"
	"appview/store"
	"appview/store/index"
	"appview/store/jobs"
	"appview/store/storetest"
)

// patience is how long a test waits for anything before it gives up: far longer
// than anything takes, because the machine may have other things to do.
const patience = 3 * time.Minute

// rig is a backfill over a sandbox and a store.
type rig struct {
	t     testing.TB
	world *sandbox.World
	path  string
	store *store.Store
	net   *network.Client
	b     *backfill.Backfill
	stop  func()     // ends Run, and waits for it
	liar  syntax.DID // of which hosts make records up
}

// options change how a rig is made. Zero values mean fast and patient.
type options struct {
	store   store.Config
	network network.Config
	config  backfill.Config
	check   func(syntax.DID) bool // which short pages are followed all the same; nil: as always
}

func newRig(tb testing.TB, world sandbox.Config) *rig {
	tb.Helper()
	return newRigWith(tb, world, options{})
}

func newRigWith(tb testing.TB, world sandbox.Config, o options) *rig {
	tb.Helper()
	r := &rig{t: tb, world: sandboxtest.Start(tb, world), path: filepath.Join(tb.TempDir(), "appview.db")}
	o.store.Path = r.path
	r.store = storetest.OpenConfig(tb, o.store)
	r.run(o)
	return r
}

// run starts a backfill over the rig's store, as a new process would.
func (r *rig) run(o options) {
	r.t.Helper()
	r.net = newNetwork(r.t, r.world, o.network)
	o.config.Store, o.config.Network = r.store, r.net
	if o.config.Retry == 0 {
		o.config.Retry = 20 * time.Millisecond
	}
	if o.config.Log == nil {
		o.config.Log = slog.New(slog.DiscardHandler)
	}
	b, err := backfill.New(o.config)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := b.Recover(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	if o.check != nil {
		b.Check(o.check)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.t.Context()))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := b.Run(ctx); err != nil {
			r.t.Errorf("run: %v", err)
		}
	}()
	r.b, r.stop = b, func() { cancel(); <-ended }
	r.t.Cleanup(r.stop)
}

func newNetwork(tb testing.TB, world *sandbox.World, cfg network.Config) *network.Client {
	tb.Helper()
	cfg.Relay, cfg.PLC, cfg.AllowPrivate = world.RelayURL(), world.PLCURL(), true
	for _, rps := range []*float64{&cfg.HostRPS, &cfg.RelayRPS, &cfg.PLCRPS} {
		if *rps == 0 {
			*rps = 100_000
		}
	}
	net, err := network.New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(net.Close)
	return net
}

// listOnly has hosts refuse getRepo, so that every repo is read by listing it.
// Everything else is as hook says.
func listOnly(world *sandbox.World, hook func(sandbox.Request) sandbox.Fault) {
	world.SetFault(func(q sandbox.Request) sandbox.Fault {
		if q.Method == getRepo {
			return sandbox.Fault{
				Name: "no getRepo", Status: http.StatusNotImplemented, Header: http.Header{"Content-Type": {"application/json"}},
				Body: []byte(`{"error":"MethodNotImplemented","message":"Method Not Implemented"}`),
			}
		}
		if hook == nil {
			return sandbox.Fault{}
		}
		return hook(q)
	})
}

func (r *rig) create(req jobs.Request) jobs.Job {
	r.t.Helper()
	job, err := r.b.Create(r.t.Context(), req)
	if err != nil {
		r.t.Fatal(err)
	}
	return job
}

func (r *rig) job(job jobs.Job) jobs.Job {
	r.t.Helper()
	job, err := r.store.Jobs.Job(context.WithoutCancel(r.t.Context()), job.ID)
	if err != nil {
		r.t.Fatal(err)
	}
	return job
}

// await waits until the job is as wanted.
func (r *rig) await(job jobs.Job, what string, is func(jobs.Job) bool) jobs.Job {
	r.t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for {
		if job = r.job(job); is(job) {
			return job
		}
		select {
		case <-tick.C:
		case <-deadline:
			r.t.Fatalf("job is not %s after %s: %+v", what, patience, job)
		}
	}
}

// finish waits for the end of a job.
func (r *rig) finish(job jobs.Job) jobs.Job {
	r.t.Helper()
	return r.await(job, "final", func(j jobs.Job) bool { return j.Status.Final() })
}

// complete runs a job and wants it completed.
func (r *rig) complete(req jobs.Request) jobs.Job {
	r.t.Helper()
	job := r.finish(r.create(req))
	if job.Status != api.StatusCompleted {
		r.t.Fatalf("job is %s: %s", job.Status, job.Error)
	}
	if n := r.b.Buffered(); n != 0 {
		r.t.Errorf("%d bytes count as buffered after the job", n)
	}
	if job.Processed != job.TotalRepos || job.Stage != api.StageCompleted || job.CompletedAt.IsZero() {
		r.t.Errorf("completed job: %+v", job)
	}
	return job
}

// served is what the index serves: uri → cid and value.
func (r *rig) served(collection syntax.NSID) map[string]string {
	r.t.Helper()
	got := map[string]string{}
	err := r.store.Index.Export(r.t.Context(), index.Filter{Collection: collection}, func(uint64) error { return nil }, func(rec *index.Record) error {
		value, err := rec.Body.JSON()
		if err != nil {
			return err
		}
		got[rec.URI().String()] = rec.Body.CID.String() + " " + canonical(r.t, value)
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return got
}

// wantTruth compares what the index serves with what the world holds.
func (r *rig) wantTruth(collection syntax.NSID) {
	r.t.Helper()
	want := map[string]string{}
	truth := r.world.Truth(collection)
	if collection == "" {
		truth = r.world.Truth()
	}
	for uri, rec := range truth {
		want[uri] = rec.CID + " " + canonical(r.t, rec.Value)
	}
	got := r.served(collection)
	for _, all := range []map[string]string{got, want} {
		maps.DeleteFunc(all, func(uri, _ string) bool { return r.liar != "" && strings.HasPrefix(uri, "at://"+r.liar.String()+"/") })
	}
	differ(r.t, got, want)
}

func differ(tb testing.TB, got, want map[string]string) {
	tb.Helper()
	if maps.Equal(got, want) {
		return
	}
	shown := 0
	for uri, w := range want {
		if g, ok := got[uri]; g != w && shown < 5 {
			tb.Errorf("%s: got %q (there: %t), want %q", uri, g, ok, w)
			shown++
		}
	}
	for uri, g := range got {
		if _, ok := want[uri]; !ok && shown < 10 {
			tb.Errorf("%s: got %q, want nothing", uri, g)
			shown++
		}
	}
	tb.Errorf("%d records served, want %d", len(got), len(want))
}

// canonical prints JSON in one form, so that only the value counts.
func canonical(tb testing.TB, value []byte) string {
	tb.Helper()
	var v any
	if err := json.Unmarshal(value, &v); err != nil {
		tb.Fatalf("value %s: %v", value, err)
	}
	out, err := json.Marshal(v)
	if err != nil {
		tb.Fatal(err)
	}
	return string(out)
}

// counters are the parts of a job that count.
func counters(j jobs.Job) any {
	return struct {
		Total, Processed, Failed, Unavailable int64
		Tally                                 index.Tally
		Reasons                               map[string]int64
	}{j.TotalRepos, j.Processed, j.Failed, j.Unavailable, j.Tally, j.Reasons}
}

func wantCounters(tb testing.TB, got, want jobs.Job) {
	tb.Helper()
	if g, w := counters(got), counters(want); !reflect.DeepEqual(g, w) {
		tb.Errorf("counters are %+v, want %+v", g, w)
	}
}
