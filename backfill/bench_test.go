package backfill_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"appview/backfill"
	"appview/network"
	"appview/record"
	"appview/sandbox"
	"appview/sandbox/sandboxtest"
	"appview/store"
)

// benchWorld is what both sides of the comparison read: repos of ten records of
// about 500 bytes.
func benchWorld() sandbox.Config {
	return sandbox.Config{
		Seed: 99, Repos: 4000, Hosts: 32, LogSize: 1,
		Collections: []sandbox.Collection{{NSID: notes, Share: 1, MinRecords: 10, MaxRecords: 10, RecordBytes: 500}},
	}
}

// benchWidth is how many repos are read at once, on both sides.
const benchWidth = 64

// BenchmarkPipelineAgainstBareLoop compares a whole job, with its store, with a
// loop that makes the same requests and does no more than decode the pages and
// check the CIDs: look-up, status, page, empty page for each repo. Both run in
// turn in one process beside the sandbox that answers them.
func BenchmarkPipelineAgainstBareLoop(b *testing.B) {
	world := sandboxtest.Start(b, benchWorld())
	var bare, pipeline time.Duration
	repos := len(world.Repos())
	for b.Loop() {
		bare += bareLoop(b, world)
		pipeline += wholeJob(b, world)
	}
	n := float64(b.N * repos)
	b.ReportMetric(n/bare.Seconds(), "bare-repos/s")
	b.ReportMetric(n/pipeline.Seconds(), "pipeline-repos/s")
	b.ReportMetric(bare.Seconds()/pipeline.Seconds(), "ratio")
	b.ReportMetric(0, "ns/op")
}

func wholeJob(b *testing.B, world *sandbox.World) time.Duration {
	b.Helper()
	quiet := slog.New(slog.DiscardHandler)
	s, err := store.Open(store.Config{Path: filepath.Join(b.TempDir(), "appview.db"), Log: quiet})
	if err != nil {
		b.Fatal(err)
	}
	net := newNetwork(b, world, network.Config{})
	f, err := backfill.New(backfill.Config{Store: s, Network: net, MaxHosts: benchWidth / 4, ReposPerHost: 4, Log: quiet})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	start := time.Now()
	go func() { ended <- f.Run(ctx) }()
	job, err := f.Create(ctx, store.Request{Collection: notes})
	for err == nil && !job.Status.Final() {
		time.Sleep(2 * time.Millisecond) //nolint:forbidigo // a benchmark polls, no test waits for it
		job, err = s.Job(ctx, job.ID)
	}
	took := time.Since(start)
	cancel()
	if err != nil || job.Status != store.StatusCompleted || job.Tally.Records != 10*job.TotalRepos {
		b.Fatalf("job: %+v, %v", job, err)
	}
	if err := <-ended; err != nil {
		b.Fatal(err)
	}
	net.Close()
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	return took
}

func bareLoop(b *testing.B, world *sandbox.World) time.Duration {
	b.Helper()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: benchWidth, MaxIdleConns: 0}}
	defer client.CloseIdleConnections()
	get := func(url string, into any) error {
		req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, url, http.NoBody)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		body, err := io.ReadAll(resp.Body)
		if errClose := resp.Body.Close(); err == nil {
			err = errClose
		}
		if err == nil && resp.StatusCode != http.StatusOK {
			err = fmt.Errorf("%s: HTTP %d", url, resp.StatusCode)
		}
		if err != nil {
			return err
		}
		return json.Unmarshal(body, into)
	}
	start := time.Now()
	var g errgroup.Group
	g.SetLimit(benchWidth)
	for _, repo := range world.Repos() {
		g.Go(func() error {
			var ignored struct{}
			if err := get(world.PLCURL()+"/"+repo.DID.String(), &ignored); err != nil {
				return err
			}
			if err := get(repo.Host+"/xrpc/"+repoStatus+"?did="+repo.DID.String(), &ignored); err != nil {
				return err
			}
			for cursor := ""; ; {
				var page struct {
					Cursor  string
					Records []struct {
						URI, CID string
						Value    json.RawMessage
					}
				}
				at := fmt.Sprintf("%s/xrpc/%s?repo=%s&collection=%s&limit=100", repo.Host, listRecords, repo.DID, notes)
				if cursor != "" {
					at += "&cursor=" + url.QueryEscape(cursor)
				}
				if err := get(at, &page); err != nil {
					return err
				}
				for _, rec := range page.Records {
					if body, err := record.FromJSON(rec.Value, rec.CID); err != nil || !body.Verified {
						return fmt.Errorf("%s: verified %t, %w", rec.URI, body.Verified, err)
					}
				}
				if cursor = page.Cursor; cursor == "" || len(page.Records) == 0 {
					return nil
				}
			}
		})
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
	return time.Since(start)
}
