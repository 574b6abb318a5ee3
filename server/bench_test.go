package server

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"

	"appview/internal/api"
	"appview/internal/record"
	"appview/server/reads"
	"appview/store"
	"appview/store/index"
	"appview/store/storetest"
)

// Size and shape of the file that reads are measured on.
const (
	standardBenchRecords = 1_000_000 // BENCH_RECORDS has another number
	benchPerRepo         = 10
	benchBigRepo         = 200 // records of every hundredth repo, so that a page can be full
	benchClients         = 8   // keep-alive connections
	benchRound           = 400 // requests of one side before it is the other's turn
	benchSamples         = 400 // different requests
)

func benchRecords(b *testing.B) int {
	b.Helper()
	text := os.Getenv("BENCH_RECORDS")
	if text == "" {
		return standardBenchRecords
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 2*benchBigRepo {
		b.Fatalf("BENCH_RECORDS is %q, want a number of at least %d", text, 2*benchBigRepo)
	}
	return n
}

func benchCount(repo int) int {
	if repo%100 == 0 {
		return benchBigRepo
	}
	return benchPerRepo
}

// benchRecord is a post-like record of about 500 bytes, with the key of a moment
// that has nothing to do with its repo's number.
func benchRecord(b *testing.B, repo, i int) index.Listed {
	b.Helper()
	random := rand.New(rand.NewPCG(uint64(repo), uint64(i)))
	words := make([]byte, 0, 320)
	for len(words) < 300 {
		words = strconv.AppendUint(append(words, ' '), random.Uint64(), 36)
	}
	if i%5 == 0 {
		words[0] = '\n' // a text that has to be escaped
	}
	at := time.UnixMicro(1_700_000_000_000_000 + random.Int64N(40_000_000_000_000)).UTC()
	value := map[string]any{
		"$type": string(note), "text": string(words), "langs": []any{"en"}, "createdAt": at.Format(time.RFC3339Nano),
		"reply": map[string]any{"uri": fmt.Sprintf("at://%s/%s/%x", storetest.FillDID(repo+1), note, i), "count": int64(i)},
	}
	block, err := atdata.MarshalCBOR(value)
	if err != nil {
		b.Fatal(err)
	}
	id, err := cid.V1Builder{Codec: cid.DagCBOR, MhType: multihash.SHA2_256}.Sum(block)
	if err != nil {
		b.Fatal(err)
	}
	body, err := record.FromCBOR(block, id)
	if err != nil {
		b.Fatal(err)
	}
	rkey := syntax.NewTID(at.UnixMicro(), uint(i)&1023)
	return index.Listed{RKey: syntax.RecordKey(rkey), Body: body}
}

// benchListing is n records of a repo, as hosts list them: the highest key first.
func benchListing(b *testing.B, repo, n int) (list []index.Listed) {
	b.Helper()
	for i := range n {
		list = append(list, benchRecord(b, repo, i))
	}
	slices.SortFunc(list, func(x, y index.Listed) int { return strings.Compare(string(y.RKey), string(x.RKey)) })
	return list
}

// benchPath is a file of n records. It is made once, and kept for the next run.
func benchPath(b *testing.B, n int) string {
	b.Helper()
	dir := b.TempDir()
	if cache, err := os.UserCacheDir(); err == nil {
		dir = filepath.Join(cache, "appview-bench")
	}
	path := filepath.Join(dir, fmt.Sprintf("reads-4-%d.db", n))
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			b.Fatal(err)
		}
		part := path + ".part"
		if err := os.RemoveAll(part); err != nil {
			b.Fatal(err)
		}
		s := openBench(b, part)
		fillBench(b, s, n)
		if err := errors.Join(s.Close(), os.Rename(part, path)); err != nil {
			b.Fatal(err)
		}
	}
	return path
}

// benchStore opens the file of n records.
func benchStore(b *testing.B, n int) *store.Store {
	b.Helper()
	return openBench(b, benchPath(b, n))
}

func openBench(b *testing.B, path string) *store.Store {
	b.Helper()
	s, err := store.Open(store.Config{Path: path, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	return s
}

// fillBench settles repos until the store holds n records.
func fillBench(b *testing.B, s *store.Store, n int) {
	b.Helper()
	var dids []syntax.DID
	for held := 0; held < n; held += benchCount(len(dids) - 1) {
		dids = append(dids, storetest.FillDID(len(dids)))
	}
	storetest.Fill(b, s, storetest.Job(b, s, note), note, dids, func(repo int) []index.Listed {
		return benchListing(b, repo, benchCount(repo))
	})
	for indexed := false; !indexed; {
		done, err := s.Index.IndexKeys(b.Context(), note)
		if err != nil {
			b.Fatal(err)
		}
		indexed = done
	}
}

// BenchmarkReads measures requests against a bare handler of net/http that sends
// the same bytes, over the same number of keep-alive connections on loopback, the
// two taking turns. The clients do next to nothing, so that the servers are
// measured. The lists are asked for again and again while nothing is written, so
// that the cache has them; the uncached ones are what remains while every commit
// empties it.
func BenchmarkReads(b *testing.B) {
	n := benchRecords(b)
	st := benchStore(b, n)
	s, err := New(Config{Store: st, Jobs: &idleJobs{store: st}})
	if err != nil {
		b.Fatal(err)
	}
	ours := httptest.NewServer(s.Handler())
	b.Cleanup(ours.Close)
	queries := benchQueries(b, ours, n)
	for _, name := range []string{
		"getRecord", "listRecords-50", "newest-50", "rkey-50", "uncached/listRecords-50", "uncached/newest-50", "uncached/rkey-50",
	} {
		b.Run(name, func(b *testing.B) {
			query, uncached := strings.CutPrefix(name, "uncached/")
			requests := queries[query]
			s.reads.SetCache(reads.CacheBytes)
			if uncached {
				s.reads.SetCache(0)
			}
			compareBench(b, ours, requests)
		})
	}
}

// compareBench measures requests against a bare handler that sends the same bytes.
func compareBench(b *testing.B, ours *httptest.Server, requests []string) {
	b.Helper()
	bodies := map[string][]byte{}
	for _, q := range requests {
		bodies[q] = fetchBench(b, ours.Client(), ours.URL+q)
	}
	bare := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := bodies[r.URL.RequestURI()]
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		_, _ = w.Write(body)
	}))
	b.Cleanup(bare.Close)
	to, of := dialBench(b, ours), dialBench(b, bare)
	to.run(b, requests) // warm both
	of.run(b, requests)
	var mine, theirs time.Duration
	rounds := 0
	for b.Loop() { // an op is a round of requests
		b.StopTimer()
		theirs += of.run(b, requests)
		b.StartTimer()
		mine += to.run(b, requests)
		rounds++
	}
	b.ReportMetric(theirs.Seconds()/mine.Seconds(), "of-bare")
	b.ReportMetric(float64(rounds*benchRound)/mine.Seconds(), "req/s")
	b.ReportMetric(float64(len(bodies[requests[0]])), "bytes")
}

// benchQueries are the requests of each kind.
func benchQueries(b *testing.B, server *httptest.Server, n int) map[string][]string {
	b.Helper()
	repos := n / (benchBigRepo + 99*benchPerRepo) * 100
	q := map[string][]string{}
	random := rand.New(rand.NewPCG(1, 2))
	for range benchSamples {
		repo := random.IntN(repos)
		rec := benchRecord(b, repo, random.IntN(benchPerRepo))
		q["getRecord"] = append(q["getRecord"], fmt.Sprintf("%s?repo=%s&collection=%s&rkey=%s", getRecord, storetest.FillDID(repo), note, rec.RKey))
		big := random.IntN(repos/100) * 100
		q["listRecords-50"] = append(q["listRecords-50"], fmt.Sprintf("%s?repo=%s&collection=%s", listRecords, storetest.FillDID(big), note))
	}
	for name, query := range map[string]string{"newest-50": "", "rkey-50": "&order=rkey"} {
		path := "/api/records?limit=50&collection=" + string(note) + query
		for next := path; len(q[name]) < benchSamples; {
			q[name] = append(q[name], next)
			var p api.Records
			if err := json.Unmarshal(fetchBench(b, server.Client(), server.URL+next), &p); err != nil {
				b.Fatal(err)
			}
			if p.Cursor == "" {
				break
			}
			next = path + "&cursor=" + url.QueryEscape(p.Cursor)
		}
	}
	return q
}

func fetchBench(b *testing.B, client *http.Client, target string) []byte {
	b.Helper()
	req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, target, nil)
	if err != nil {
		b.Fatal(err)
	}
	req.Header.Set("Accept-Encoding", "identity")
	res, err := client.Do(req)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		b.Fatalf("%s: %d %s %v", target, res.StatusCode, body, err)
	}
	return body
}

// benchConns are the connections to one server.
type benchConns struct {
	conns   []net.Conn
	readers []*bufio.Reader
}

func dialBench(b *testing.B, server *httptest.Server) *benchConns {
	b.Helper()
	c := &benchConns{}
	for range benchClients {
		conn, err := new(net.Dialer).DialContext(b.Context(), "tcp", server.Listener.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = conn.Close() })
		c.conns, c.readers = append(c.conns, conn), append(c.readers, bufio.NewReaderSize(conn, 64<<10))
	}
	return c
}

// run sends a round of requests over all connections and tells how long that took.
func (c *benchConns) run(b *testing.B, requests []string) time.Duration {
	b.Helper()
	start := time.Now()
	var clients sync.WaitGroup
	for i := range c.conns {
		clients.Go(func() {
			for n := i; n < benchRound; n += len(c.conns) {
				if err := c.ask(i, requests[n%len(requests)]); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	clients.Wait()
	return time.Since(start)
}

// ask sends a request and reads its answer, understanding no more than it must.
func (c *benchConns) ask(i int, request string) error {
	if _, err := io.WriteString(c.conns[i], "GET "+request+" HTTP/1.1\r\nHost: bench\r\n\r\n"); err != nil {
		return err
	}
	in, length := c.readers[i], -1
	for first := true; ; first = false {
		line, err := in.ReadSlice('\n')
		switch {
		case err != nil:
			return err
		case first && !bytes.HasPrefix(line, []byte("HTTP/1.1 200 ")):
			return fmt.Errorf("%s: %s", request, line)
		case len(line) <= 2 && length < 0:
			return fmt.Errorf("%s: no length", request)
		case len(line) <= 2:
			_, err := in.Discard(length)
			return err
		}
		if text, is := bytes.CutPrefix(line, []byte("Content-Length: ")); is {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(text))); err != nil {
				return err
			}
		}
	}
}
