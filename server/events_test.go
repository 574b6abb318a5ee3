package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"appview/internal/api"
	"appview/server/answer"
	"appview/store/admin"
	"appview/store/index"
	"appview/store/jobs"
)

// eventStream is the client's end of a stream of events.
type eventStream struct {
	t   *testing.T
	res *http.Response
	in  *bufio.Reader
}

// events opens the stream of a job.
func (r *rig) events(id uuid.UUID, header ...string) *eventStream {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s/admin/backfill/%s/events", r.http.URL, id), http.NoBody)
	r.check(err)
	req.Header.Set("Authorization", "Bearer "+testKey)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := r.http.Client().Do(req)
	r.check(err)
	r.t.Cleanup(func() { cancel(); _ = res.Body.Close() })
	if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "text/event-stream" {
		r.t.Fatalf("events: %d %v", res.StatusCode, res.Header)
	}
	return &eventStream{t: r.t, res: res, in: bufio.NewReader(res.Body)}
}

// next is the next thing in the stream: "retry: …", ": comment", or the data of an
// event called job. io.EOF is its end.
func (e *eventStream) next() (string, error) {
	e.t.Helper()
	var block []string
	for {
		line, err := e.in.ReadString('\n')
		if err != nil {
			if len(block) > 0 || line != "" {
				e.t.Errorf("the stream ends within %q", append(block, line))
			}
			return "", err
		}
		if line = strings.TrimSuffix(line, "\n"); line != "" {
			block = append(block, line)
			continue
		}
		if len(block) == 2 && block[0] == "event: job" && strings.HasPrefix(block[1], "data: {") {
			return strings.TrimPrefix(block[1], "data: "), nil
		}
		if len(block) != 1 {
			e.t.Errorf("in the stream: %q", block)
		}
		return block[0], nil
	}
}

// job is the next event.
func (e *eventStream) job() (d api.JobDetail) {
	e.t.Helper()
	for {
		text, err := e.next()
		if err != nil {
			e.t.Fatalf("no more events: %v", err)
		}
		if strings.HasPrefix(text, "{") {
			where := []string{"paths", "/admin/backfill/{id}/events", "get", "responses", "200", "content", "text/event-stream", "schema"}
			if err := theDescription().validate(where, text); err != nil {
				e.t.Errorf("event is not as described: %v", err)
			}
			result{body: text}.decode(e.t, &d)
			return d
		}
	}
}

// until reads events until one is as it should be.
func (e *eventStream) until(is func(api.JobDetail) bool) api.JobDetail {
	e.t.Helper()
	for {
		if d := e.job(); is(d) {
			return d
		}
	}
}

func (e *eventStream) wantEnd() {
	e.t.Helper()
	for {
		text, err := e.next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil || strings.HasPrefix(text, "{") {
			e.t.Fatalf("instead of the end: %q %v", text, err)
		}
	}
}

// wantCut wants the stream to be broken off.
func (e *eventStream) wantCut() {
	e.t.Helper()
	if _, err := io.Copy(io.Discard, e.in); err == nil {
		e.t.Error("the stream ends as if that were all")
	}
}

func TestEventsShowAJobToItsEnd(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	job, err := r.store.Jobs.CreateJob(t.Context(), uuid.New(), jobs.Request{DID: alice}, nil)
	r.check(err)
	stream := r.events(job.ID, "Last-Event-ID", "17") // of another life: it changes nothing
	if text, err := stream.next(); text != "retry: 2000" {
		t.Errorf("the stream begins with %q %v", text, err)
	}
	first, err := stream.next()
	if now := r.get("/admin/backfill/" + job.ID.String()).body; err != nil || first+"\n" != now {
		t.Errorf("first event\n%s\nis not what the job's own route says\n%s", first, now)
	}
	_, err = r.store.Jobs.StartJob(t.Context(), job.Seq)
	r.check(err)
	stream.until(func(d api.JobDetail) bool { return d.Stage == api.StageDiscovering })
	r.settleIn(job, alice, index.AccountActive, nil, jobs.Verdict{Class: jobs.ClassDone, Reason: "empty"})
	if d := stream.until(func(d api.JobDetail) bool { return d.ProcessedRepos != nil }); *d.ProcessedRepos != 1 || d.EmptyRepos != 1 {
		t.Errorf("got %+v", d)
	}
	r.check(r.store.Work.EndDiscovery(t.Context(), job.Seq, ""))
	_, err = r.store.Jobs.FinishJob(t.Context(), job.Seq, func(jobs.Job) string { return "" })
	r.check(err)
	stream.until(func(d api.JobDetail) bool { return d.Status == api.StatusCompleted && d.CompletedAt != nil })
	stream.wantEnd()

	again := r.events(job.ID) // of a job that is final already
	if d := again.job(); d.Status != api.StatusCompleted {
		t.Errorf("got %+v", d)
	}
	again.wantEnd()
	r.unwatched()
}

// unwatched waits until no stream runs, and fails if a job is still watched then.
func (r *rig) unwatched() {
	r.t.Helper()
	r.server.serving.Lock() // no handler runs
	defer r.server.serving.Unlock()
	if n := r.server.control.Watched(); n != 0 || len(r.server.out.Bounds.Streams) != 0 {
		r.t.Errorf("%d jobs are still watched, %d streams counted", n, len(r.server.out.Bounds.Streams))
	}
}

func TestEventsAreRefusedLikeEverythingElse(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.create("{}")
	path := "/admin/backfill/" + id.String() + "/events"
	r.get(path+"?x=1").want(t, 400, "unknown parameter")
	r.get("/admin/backfill/"+uuid.NewString()+"/events").want(t, 404, "there is no job")
	if a := r.do(http.MethodHead, path, ""); a.status != 200 || a.header.Get("Content-Type") != "text/event-stream" {
		t.Errorf("HEAD: %d %v", a.status, a.header)
	}
	for range cap(r.server.out.Bounds.Streams) {
		r.server.out.Bounds.Streams <- struct{}{}
	}
	a := r.get(path)
	a.want(t, 429, "streams of events as may run at once (256) run already")
	if a.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
}

func TestQuietStreamsAreKeptAlive(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.server.out.Bounds.Beat = time.Millisecond
	stream := r.events(r.create("{}"))
	stream.job()
	for range 3 {
		if text, err := stream.next(); text != ": still here" {
			t.Fatalf("got %q %v", text, err)
		}
	}
}

func TestAStreamEndsWithItsKey(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.create("{}")
	stream := r.events(id, "Authorization", r.bearerOf("hv_a-key-that-is-revoked", nil, api.BackfillRead))
	stream.job()
	r.revoke(r.keyNamed("hv_a-key-that-is-revoked").ID)
	stream.wantCut()
	expires := time.Now().Add(300 * time.Millisecond)
	stream = r.events(id, "Authorization", r.bearerOf("hv_a-key-that-expires", func(k *admin.APIKey) { k.ExpiresAt = expires }, api.BackfillRead))
	stream.job()
	stream.wantCut()
	if time.Now().Before(expires) {
		t.Error("the stream ended before its key expired")
	}
	r.unwatched()
}

func TestStoppingEndsStreams(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.create("{}")
	run := r.run()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", run.addr)
	r.check(err)
	defer func() { _ = conn.Close() }()
	_, err = fmt.Fprintf(conn, "GET /admin/backfill/%s/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", id, testKey)
	r.check(err)
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	r.check(err)
	defer func() { _ = res.Body.Close() }()
	stream := &eventStream{t: t, res: res, in: bufio.NewReader(res.Body)}
	stream.job()
	run.stop()
	stream.wantEnd() // a clean one: nothing was cut
	run.wait(t)
	if strings.Contains(r.logs.String(), "are cut") {
		t.Errorf("the stream was cut:\n%s", r.logs)
	}
}

func TestAClientThatTakesNothingIsCut(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.server.out.Bounds.Event = 100 * time.Millisecond
	r.server.out.Bounds.Look = time.Millisecond
	r.jobs.restless = true // every look at the job is another
	id := r.create("{}")
	run := r.run()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", run.addr)
	r.check(err)
	defer func() { _ = conn.Close() }()
	_, err = fmt.Fprintf(conn, "GET /admin/backfill/%s/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", id, testKey)
	r.check(err)
	r.logs.wait(t, "stream of events cut off")
	kept, err := io.ReadAll(conn)
	if len(kept) > 1<<20 || !strings.HasPrefix(string(kept), "HTTP/1.1 200 OK") || strings.HasSuffix(string(kept), "0\r\n\r\n") {
		t.Errorf("%d bytes were kept for it, then %v", len(kept), err)
	}
	r.unwatched()
	run.stop()
	run.wait(t)
}

// Half of the clients never read: they cost no more than the others.
func TestManyStreamsLookAtTheJobOnce(t *testing.T) {
	t.Parallel()
	const streams = 200
	r := newRig(t)
	r.jobs.restless = true
	job, err := r.store.Jobs.CreateJob(t.Context(), uuid.New(), jobs.Request{DID: alice}, nil)
	r.check(err)
	began := time.Now()
	var reading []*eventStream
	for i := range streams {
		if e := r.events(job.ID); i%2 == 0 {
			reading = append(reading, e)
		}
	}
	for _, e := range reading {
		e.job()
	}
	seen := r.jobs.looks()
	for _, e := range reading {
		e.until(func(d api.JobDetail) bool { return int64(d.ReposPerSecond) >= seen })
	}
	looks, most := r.jobs.looks(), int64(time.Since(began)/answer.WatchEvery)+2
	if looks < 2 || looks > most {
		t.Errorf("the job was looked at %d times for %d clients, at most %d were due", looks, streams, most)
	}
	r.check(r.store.Work.EndDiscovery(t.Context(), job.Seq, ""))
	_, err = r.store.Jobs.FinishJob(t.Context(), job.Seq, func(jobs.Job) string { return "" })
	r.check(err)
	for _, e := range reading {
		e.until(func(d api.JobDetail) bool { return d.Status.Final() })
		e.wantEnd()
	}
	r.unwatched()
}
