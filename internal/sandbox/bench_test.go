package sandbox_test

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"testing"

	"appview/internal/sandbox"
	"appview/internal/sandbox/sandboxtest"
)

func BenchmarkNew(b *testing.B) {
	for _, repos := range []int{100, 2000} {
		b.Run(strconv.Itoa(repos), func(b *testing.B) {
			for b.Loop() {
				w, err := sandbox.New(sandbox.Config{Hosts: 10, Repos: repos})
				if err != nil {
					b.Fatal(err)
				}
				if err := w.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkRequests includes the client's side, which costs more than the
// sandbox's.
func BenchmarkRequests(b *testing.B) {
	w := sandboxtest.Start(b, sandbox.Config{Hosts: 8, Repos: 1000})
	repos := w.Repos()
	for _, method := range []string{getRepoStatus, listRecords, getRepo} {
		b.Run(method[len("com.atproto."):], func(b *testing.B) {
			c := newClient(b)
			buf := make([]byte, 32<<10)
			i := 0
			for b.Loop() {
				r := repos[i%len(repos)]
				i++
				address := xrpc(r.Host, method, "did", r.DID.String(), "repo", r.DID.String(), "collection", sandbox.NoteCollection.String(), "limit", "100")
				req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, address, http.NoBody)
				if err != nil {
					b.Fatal(err)
				}
				resp, err := c.http.Do(req)
				if err != nil {
					b.Fatal(err)
				}
				_, err = io.CopyBuffer(io.Discard, resp.Body, buf)
				if err = errors.Join(err, resp.Body.Close()); err != nil || resp.StatusCode != http.StatusOK {
					b.Fatal(resp.StatusCode, err)
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
		})
	}
}
