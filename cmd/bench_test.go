package cmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"appview/cmd/term"
	"appview/internal/record"
	"appview/internal/sandbox"
	"appview/internal/sandbox/sandboxtest"
)

const (
	// rebare makes the test binary be the bare loop; its value is a file that
	// says what to read.
	rebare = "TEST_RUNS_BARE_LOOP"
	// benchWidth is how many repos are read at once, on both sides.
	benchWidth = 64
	// BENCH_REPOS is the number of repos of the world.
	defaultBenchRepos   = 8000
	benchRecordsPerRepo = 10
	benchFifths         = 5
)

// bareWork is what the bare loop is to read.
type bareWork struct {
	PLC   string
	Repos []bareRepo
	Width int
	Whole bool // repos are fetched in one piece
}

type bareRepo struct{ DID, Host string }

// BenchmarkBackfill compares a whole job of the program, store and bookkeeping
// included, with a bare loop: another process that follows every listing to its end
// (look-up, status, page, empty page for each repo) and does no more than decode
// the pages and check the CIDs. Both are processes of their own, run in turn
// beside the sandbox that answers them. It reports the ratios of speed and of
// processor time, the program's peak of anonymous memory, and its requests to
// hosts for each repo, which are fewer than the loop's.
func BenchmarkBackfill(b *testing.B) { benchBackfill(b, 0, benchWidth/4) }

// BenchmarkBackfillOverASlowNetwork has hosts answer every request after 300 ms,
// with up to 512 repos read at once: the ratio is that to the ideal, in which
// nothing is ever waited for but the answers to the program's requests. (At 50 ms
// the two processors that the sandbox shares with it are what is waited for.)
func BenchmarkBackfillOverASlowNetwork(b *testing.B) {
	benchBackfill(b, 300*time.Millisecond, 128)
}

// BenchmarkBackfillWatched runs a whole job while 200 clients follow its events, of
// which every other one never reads, in turn with the same job unwatched.
func BenchmarkBackfillWatched(b *testing.B) {
	world, hosts := benchWorld(b, benchWidth/4), benchWidth/4
	clients := func(b *testing.B, r underWay) (wait func()) {
		b.Helper()
		return followed(b, r, 200, func(term.Job) {})
	}
	var alone, watched jobRun
	for b.Loop() {
		alone.add(wholeJob(b, world, hosts, nil))
		watched.add(wholeJob(b, world, hosts, clients))
	}
	b.ReportMetric(alone.wall.Seconds()/watched.wall.Seconds(), "speed-ratio")
	b.ReportMetric(watched.cpu.Seconds()/alone.cpu.Seconds(), "cpu-ratio")
	b.ReportMetric(alone.anonymousMiB, "alone-MiB")
	b.ReportMetric(watched.anonymousMiB, "watched-MiB")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkBackfillGrowth runs a whole job, and reports how fast it gets each fifth of its
// records, and in how much processor time, beside the first. Look-ups run ahead: they
// weigh on the first ones.
func BenchmarkBackfillGrowth(b *testing.B) {
	world, hosts := benchWorld(b, benchWidth/4), benchWidth/4
	fifth := int64(len(world.Repos()) * benchRecordsPerRepo / benchFifths)
	var whole jobRun
	var fifths [benchFifths]spent
	for b.Loop() {
		var at []spent // the beginning, and the end of each fifth
		whole.add(wholeJob(b, world, hosts, func(b *testing.B, r underWay) (wait func()) {
			b.Helper()
			at = append(at, r.spent(b))
			return followed(b, r, 1, func(j term.Job) {
				if j.TotalRecords != nil && *j.TotalRecords >= int64(len(at))*fifth {
					at = append(at, r.spent(b))
				}
			})
		}))
		if len(at) != benchFifths+1 {
			b.Fatalf("%d fifths were seen", len(at)-1)
		}
		for i := range fifths {
			fifths[i].add(at[i+1].since(at[i]))
		}
	}
	for i, f := range fifths {
		b.ReportMetric(fifths[0].wall.Seconds()/f.wall.Seconds(), fmt.Sprintf("speed%d", i+1))
		b.ReportMetric(f.cpu.Seconds()/fifths[0].cpu.Seconds(), fmt.Sprintf("cpu%d", i+1))
	}
	b.ReportMetric(float64(b.N*len(world.Repos()))/whole.wall.Seconds(), "job-repos/s")
	b.ReportMetric(whole.anonymousMiB, "anonymous-MiB")
	b.ReportMetric(0, "ns/op")
}

// benchWorld is a world of BENCH_REPOS repos with ten records each.
func benchWorld(b *testing.B, hosts int) *sandbox.World {
	b.Helper()
	return sandboxtest.Start(b, sandbox.Config{
		Seed: 99, Repos: benchRepos(b, defaultBenchRepos), Hosts: hosts, LogSize: 1,
		Collections: []sandbox.Collection{{NSID: sandbox.NoteCollection, Share: 1, MinRecords: benchRecordsPerRepo, MaxRecords: benchRecordsPerRepo, RecordBytes: 500}},
	})
}

// benchRepos is BENCH_REPOS, or so many.
func benchRepos(b *testing.B, usual int) int {
	b.Helper()
	text := os.Getenv("BENCH_REPOS")
	if text == "" {
		return usual
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		b.Fatalf("BENCH_REPOS: %v", err)
	}
	return n
}

func benchBackfill(b *testing.B, latency time.Duration, hosts int) {
	b.Helper()
	world := benchWorld(b, hosts)
	repos := len(world.Repos())
	if latency > 0 {
		world.SetFault(func(q sandbox.Request) sandbox.Fault {
			if q.Part != sandbox.PartPDS {
				return sandbox.Fault{}
			}
			return sandbox.Fault{Delay: latency}
		})
	}
	var bare spent
	var whole jobRun
	var requests int64
	for b.Loop() {
		bare.add(bareLoop(b, world, bareWork{Width: 4 * hosts}))
		before := world.Count(sandbox.PartPDS, "")
		whole.add(wholeJob(b, world, hosts, nil))
		requests += world.Count(sandbox.PartPDS, "") - before
	}
	n := float64(b.N * repos)
	b.ReportMetric(n/bare.wall.Seconds(), "bare-repos/s")
	b.ReportMetric(n/whole.wall.Seconds(), "job-repos/s")
	b.ReportMetric(bare.wall.Seconds()/whole.wall.Seconds(), "speed-ratio")
	b.ReportMetric(whole.cpu.Seconds()/bare.cpu.Seconds(), "cpu-ratio")
	b.ReportMetric(whole.anonymousMiB, "anonymous-MiB")
	b.ReportMetric(whole.bytes/n/benchRecordsPerRepo, "allocated-bytes/record")
	b.ReportMetric(whole.objects/n/benchRecordsPerRepo, "allocations/record")
	b.ReportMetric(float64(requests)/n, "requests/repo")
	if latency > 0 {
		ideal := float64(requests) * latency.Seconds() / float64(4*hosts)
		b.ReportMetric(ideal/whole.wall.Seconds(), "of-ideal")
	}
	b.ReportMetric(0, "ns/op")
}

// spent is the time that a process took.
type spent struct{ wall, cpu time.Duration }

func (s *spent) add(o spent)        { s.wall, s.cpu = s.wall+o.wall, s.cpu+o.cpu }
func (s spent) since(o spent) spent { return spent{s.wall - o.wall, s.cpu - o.cpu} }

// jobRun is what a run of the program took.
type jobRun struct {
	spent

	anonymousMiB   float64 // at its peak
	bytes, objects float64 // allocated
}

func (r *jobRun) add(o jobRun) {
	r.spent.add(o.spent)
	r.anonymousMiB = max(r.anonymousMiB, o.anonymousMiB)
	r.bytes, r.objects = r.bytes+o.bytes, r.objects+o.objects
}

// underWay is a run of the program of which the end is not reached.
type underWay struct {
	dir   string
	log   *output
	pid   int
	start time.Time
}

// spent is what it has taken so far, processor time only where the system tells it.
func (r underWay) spent(b *testing.B) spent {
	b.Helper()
	s := spent{wall: time.Since(r.start)}
	if runtime.GOOS != "linux" {
		return s
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", r.pid))
	if err != nil {
		b.Fatal(err)
	}
	_, after, _ := strings.Cut(string(stat), ") ") // the program's name
	fields := strings.Fields(after)
	for _, ticks := range fields[11:13] { // in user mode and in the kernel
		n, err := strconv.ParseInt(ticks, 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		s.cpu += time.Duration(n) * 10 * time.Millisecond
	}
	return s
}

// wholeJob runs the program on an empty directory until its job over one collection has
// ended. beside, if any, is called when it has begun, and what that returns when it is over.
func wholeJob(b *testing.B, world *sandbox.World, hosts int, beside func(*testing.B, underWay) (wait func())) jobRun {
	b.Helper()
	return runJob(b, world, hosts, false, benchRecordsPerRepo, beside)
}

// runJob is wholeJob. With everything, beside creates the job.
func runJob(b *testing.B, world *sandbox.World, hosts int, everything bool, perRepo int, beside func(*testing.B, underWay) (wait func())) (run jobRun) {
	b.Helper()
	exe, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	log, dir := newOutput(), b.TempDir()
	args := []string{
		"serve", "--data-dir", dir, "--listen", "127.0.0.1:0",
		"--relay", world.RelayURL(), "--plc", world.PLCURL(), "--allow-private-hosts", "--host-rps", "100000", "--plc-rps", "100000",
		"--max-hosts", strconv.Itoa(hosts), "--repos-per-host", "4",
	}
	if !everything {
		args = append(args, "--collection", sandbox.NoteCollection.String())
	}
	cmd := exec.CommandContext(b.Context(), exe, args...)
	cmd.Env = []string{reexec + "=1"}
	cmd.Stdout, cmd.Stderr = log, log
	start := time.Now()
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	wait := func() {}
	if beside != nil {
		wait = beside(b, underWay{dir, log, cmd.Process.Pid, start})
	}
	var peak int64
	for tick := time.Tick(10 * time.Millisecond); !strings.Contains(log.String(), `msg="job ended"`); <-tick {
		peak = max(peak, anonymousKiB(b, cmd.Process.Pid))
		if time.Since(start) > 20*time.Minute {
			b.Fatalf("the job does not end:\n%s", log)
		}
	}
	run.wall, run.anonymousMiB = time.Since(start), float64(peak)/1024
	wait()
	run.bytes, run.objects = allocated(b, dir)
	if err := errors.Join(cmd.Process.Signal(os.Interrupt), cmd.Wait()); err != nil {
		b.Fatalf("%v\n%s", err, log)
	}
	if want := fmt.Sprintf("records=%d", perRepo*len(world.Repos())); !strings.Contains(log.String(), want+" ") {
		b.Fatalf("the job has not found %s:\n%s", want, log)
	}
	run.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return run
}

// allocated is what the server on dir says that it has allocated.
func allocated(b *testing.B, dir string) (bytes, objects float64) {
	b.Helper()
	c, err := (&program{}).newClient(clientOptions{dataDir: dir})
	if err != nil {
		b.Fatal(err)
	}
	text, err := c.call(b.Context(), http.MethodGet, "/metrics", nil)
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, err := strconv.ParseFloat(value, 64)
		switch {
		case err != nil:
		case name == "go_memstats_alloc_bytes_total":
			bytes = n
		case name == "go_memstats_mallocs_total":
			objects = n
		}
	}
	if bytes == 0 || objects == 0 {
		b.Fatalf("nothing is said of allocations:\n%s", text)
	}
	return bytes, objects
}

// followed has clients follow the job of a run, of which every other one never reads.
// The first calls each for what it reads. It returns what waits for those that do.
func followed(b *testing.B, r underWay, clients int, each func(term.Job)) (wait func()) {
	b.Helper()
	for tick := time.Tick(time.Millisecond); !strings.Contains(r.log.String(), "msg=\"job started\""); <-tick {
		if b.Context().Err() != nil {
			b.Fatal(r.log)
		}
	}
	c, err := (&program{}).newClient(clientOptions{dataDir: r.dir})
	if err != nil {
		b.Fatal(err)
	}
	var jobs []term.Job
	if _, err := c.get(b.Context(), "/admin/backfill/status", &jobs); err != nil || len(jobs) != 1 {
		b.Fatalf("%v %v", jobs, err)
	}
	var reading errgroup.Group
	for i := range clients {
		if i%2 == 0 {
			reading.Go(func() error {
				_, err := c.follow(b.Context(), jobs[0].ID.String(), time.Minute, func(j term.Job, _ json.RawMessage) {
					if i == 0 {
						each(j)
					}
				})
				return err
			})
			continue
		}
		res, err := c.send(b.Context(), http.MethodGet, jobPath(jobs[0].ID.String(), "events"), nil)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = res.Body.Close() })
	}
	return func() {
		if err := reading.Wait(); err != nil {
			b.Error(err)
		}
	}
}

// anonymousKiB is the memory of a process that no file backs; 0 where the system
// does not tell.
func anonymousKiB(tb testing.TB, pid int) int64 {
	tb.Helper()
	if runtime.GOOS != "linux" {
		return 0
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0 // it has ended
	}
	_, after, _ := strings.Cut(string(status), "RssAnon:")
	fields := strings.Fields(after)
	if len(fields) == 0 {
		return 0
	}
	n, err := strconv.ParseInt(fields[0], 10, 64)
	if err != nil {
		tb.Fatal(err)
	}
	return n
}

// bareLoop runs the bare loop in a process of its own.
func bareLoop(b *testing.B, world *sandbox.World, work bareWork) spent {
	b.Helper()
	work.PLC = world.PLCURL()
	for _, repo := range world.Repos() {
		work.Repos = append(work.Repos, bareRepo{repo.DID.String(), repo.Host})
	}
	data, err := json.Marshal(work)
	if err != nil {
		b.Fatal(err)
	}
	file := filepath.Join(b.TempDir(), "work.json")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		b.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.CommandContext(b.Context(), exe)
	cmd.Env = []string{rebare + "=" + file}
	start := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("bare loop: %v\n%s", err, out)
	}
	return spent{time.Since(start), cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}
}

// runBareLoop is the bare loop: it reads what the file names.
func runBareLoop(ctx context.Context, file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var work bareWork
	if err := json.Unmarshal(data, &work); err != nil {
		return err
	}
	transport := &http.Transport{MaxIdleConnsPerHost: work.Width}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	fetch := func(url string) ([]byte, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
		if err != nil {
			return nil, err
		}
		resp, err := client.Do(req)
		if err != nil {
			return nil, err
		}
		body, err := io.ReadAll(resp.Body)
		if err = errors.Join(err, resp.Body.Close()); err != nil {
			return nil, err
		}
		if resp.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("%s: HTTP %d", url, resp.StatusCode)
		}
		return body, nil
	}
	get := func(url string, into any) error {
		body, err := fetch(url)
		if err != nil {
			return err
		}
		return json.Unmarshal(body, into)
	}
	var g errgroup.Group
	g.SetLimit(work.Width)
	for _, repo := range work.Repos {
		g.Go(func() error {
			if work.Whole {
				return readBareWhole(ctx, fetch, work.PLC, repo)
			}
			return readBare(get, work.PLC, repo)
		})
	}
	return g.Wait()
}

func readBare(get func(string, any) error, plc string, repo bareRepo) error {
	var ignored struct{}
	if err := get(plc+"/"+repo.DID, &ignored); err != nil {
		return err
	}
	if err := get(repo.Host+"/xrpc/com.atproto.sync.getRepoStatus?did="+repo.DID, &ignored); err != nil {
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
		at := fmt.Sprintf("%s/xrpc/%s?repo=%s&collection=%s&limit=100", repo.Host, listRecords, repo.DID, sandbox.NoteCollection)
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
}
