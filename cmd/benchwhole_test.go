package cmd

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/identity"
	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/network/repo"
	"appview/internal/record"
	"appview/internal/sandbox"
	"appview/internal/sandbox/sandboxtest"
)

// The world of BenchmarkBackfillOfEverything. BENCH_REPOS is the number of its repos.
const (
	defaultEverythingRepos   = 5000
	everythingRecordsPerRepo = 20
	everythingHosts          = 250
	everythingAtOnce         = 128 // hosts: as by default
)

// BenchmarkBackfillOfEverything compares a job over all collections, which reads each repo
// in one piece and checks its signature, with a bare loop that makes one look-up and one
// getRepo for each repo, checks everything, and stores nothing. Both are processes of
// their own, run in turn.
func BenchmarkBackfillOfEverything(b *testing.B) {
	world := sandboxtest.Start(b, sandbox.Config{
		Seed: 7, Repos: benchRepos(b, defaultEverythingRepos), Hosts: everythingHosts, LogSize: 1,
		Collections: []sandbox.Collection{{NSID: sandbox.NoteCollection, Share: 1, MinRecords: everythingRecordsPerRepo, MaxRecords: everythingRecordsPerRepo, RecordBytes: 500}},
	})
	var bare spent
	var job jobRun
	var asked, lookedUp int64
	for b.Loop() {
		bare.add(bareLoop(b, world, bareWork{Width: benchWidth, Whole: true}))
		before, documents := world.Count(sandbox.PartPDS, ""), world.Count(sandbox.PartPLC, "")
		job.add(runJob(b, world, everythingAtOnce, true, everythingRecordsPerRepo, createdOverEverything))
		asked += world.Count(sandbox.PartPDS, "") - before
		lookedUp += world.Count(sandbox.PartPLC, "") - documents
	}
	n := float64(b.N * len(world.Repos()))
	b.ReportMetric(n/bare.wall.Seconds(), "bare-repos/s")
	b.ReportMetric(n/job.wall.Seconds(), "job-repos/s")
	b.ReportMetric(bare.wall.Seconds()/job.wall.Seconds(), "speed-ratio")
	b.ReportMetric(job.cpu.Seconds()/bare.cpu.Seconds(), "cpu-ratio")
	b.ReportMetric(job.cpu.Seconds()*1000/n, "cpu-s/1000-repos")
	b.ReportMetric(job.anonymousMiB, "anonymous-MiB")
	b.ReportMetric(float64(asked)/n, "requests/repo")
	b.ReportMetric(float64(lookedUp)/n, "look-ups/repo")
	b.ReportMetric(0, "ns/op")
}

// createdOverEverything creates the job of a run when its server is ready.
func createdOverEverything(b *testing.B, r underWay) (wait func()) {
	b.Helper()
	c, err := (&program{}).newClient(clientOptions{dataDir: r.dir})
	for tick := time.Tick(time.Millisecond); err != nil || !strings.Contains(r.log.String(), "admin key"); <-tick {
		if b.Context().Err() != nil || time.Since(r.start) > time.Minute {
			b.Fatalf("%v\n%s", err, r.log)
		}
		c, err = (&program{}).newClient(clientOptions{dataDir: r.dir})
	}
	if _, err := c.call(b.Context(), http.MethodPost, "/admin/backfill", strings.NewReader("{}")); err != nil {
		b.Fatal(err)
	}
	return func() {}
}

// readBareWhole reads one repo as the bare loop does.
func readBareWhole(ctx context.Context, fetch func(string) ([]byte, error), plc string, r bareRepo) error {
	body, err := fetch(plc + "/" + r.DID)
	if err != nil {
		return err
	}
	var doc identity.DIDDocument
	if err := json.Unmarshal(body, &doc); err != nil {
		return err
	}
	ident := identity.ParseIdentity(&doc)
	key, err := ident.PublicKey()
	if err != nil {
		return err
	}
	if body, err = fetch(r.Host + "/xrpc/com.atproto.sync.getRepo?did=" + r.DID); err != nil {
		return err
	}
	room := func(int64) error { return nil }
	car := repo.NewCAR(nil)
	defer car.Close()
	if err := car.Receive(bytes.NewReader(body), repo.Memory{Grow: room}); err != nil {
		return err
	}
	whole, err := car.Open(ctx, repo.Account{DID: syntax.DID(r.DID), Key: key, Now: time.Now()}, room)
	if err != nil {
		return err
	}
	for _, c := range whole.Collections() {
		for _, block := range whole.Records(ctx, c) {
			if _, err := record.FromCBOR(block.Data, block.CID); err != nil {
				return err
			}
		}
	}
	return whole.Err()
}
