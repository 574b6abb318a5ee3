package sandbox_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"testing"
	"time"

	"appview/internal/sandbox"
	"appview/internal/sandbox/sandboxtest"
)

func TestFaultsOfEveryKindAtEveryPart(t *testing.T) {
	t.Parallel()
	w := sandboxtest.Start(t, sandbox.Config{Seed: 41, Hosts: 1, Repos: 3})
	c := newClient(t)
	r := w.Repos()[0]
	addresses := map[sandbox.Part]string{
		sandbox.PartRelay: xrpc(w.RelayURL(), listRepos),
		sandbox.PartPLC:   w.PLCURL() + "/" + r.DID.String(),
		sandbox.PartPDS:   xrpc(r.Host, getRepo, "did", r.DID.String()),
	}
	fired := int64(0)
	for part, address := range addresses {
		w.SetFault(nil)
		whole := c.get(address)

		arm := func(f sandbox.Fault) {
			fired++
			w.SetFault(func(r sandbox.Request) sandbox.Fault {
				if r.Part != part {
					return sandbox.Fault{}
				}
				return f
			})
		}
		arm(sandbox.Fault{Status: 503, Header: http.Header{"retry-after": {"7"}}, Body: []byte("busy")})
		if got := c.get(address); got.status != 503 || got.header.Get("Retry-After") != "7" || string(got.body) != "busy" {
			t.Errorf("%s: status fault: %d %v %s", part, got.status, got.header, got.body)
		}
		arm(sandbox.Fault{Cut: true, CutAfter: 10})
		if got, err := c.try(t.Context(), address); err == nil || got.status != 200 || !bytes.Equal(got.body, whole.body[:10]) {
			t.Errorf("%s: cut fault: %d %d bytes %v", part, got.status, len(got.body), err)
		}
		arm(sandbox.Fault{Name: "xs", Rewrite: func(a sandbox.Answer) sandbox.Answer {
			a.Header.Set("X-Length", "changed")
			a.Body = bytes.Repeat([]byte("x"), len(a.Body))
			return a
		}})
		if got := c.get(address); len(got.body) != len(whole.body) || got.body[0] != 'x' ||
			got.header.Get("X-Length") != "changed" || got.header.Get("Content-Type") != whole.header.Get("Content-Type") {
			t.Errorf("%s: rewrite fault: %d %s %v", part, got.status, got.body, got.header)
		}
		arm(sandbox.Fault{Rate: 4 * len(whole.body)})
		began := time.Now()
		if got := c.get(address); got.status != 200 || len(got.body) != len(whole.body) || time.Since(began) < 200*time.Millisecond {
			t.Errorf("%s: rate fault: %d, %d bytes in %s", part, got.status, len(got.body), time.Since(began))
		}
		arm(sandbox.Fault{Delay: time.Millisecond})
		if got := c.get(address); part != sandbox.PartPDS && !bytes.Equal(got.body, whole.body) {
			t.Errorf("%s: a delay changed the answer", part)
		}
		arm(sandbox.Fault{Hang: true})
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if got, err := c.try(ctx, address); err == nil {
			t.Errorf("%s: hang fault: %d", part, got.status)
		}
		cancel()
	}
	w.SetFault(nil)
	if w.Faults("") != fired || w.Faults("xs") != 3 || w.Faults("hang") != 3 || w.Faults("cut") != 3 || w.Faults("rate") != 3 || w.Faults("status") != 3 {
		t.Errorf("%d faults counted, %d armed", w.Faults(""), fired)
	}
}

func TestLongDelayEndsWhenTheClientGoes(t *testing.T) {
	t.Parallel()
	w := sandboxtest.Start(t, sandbox.Config{Hosts: 1, Repos: 1})
	c := newClient(t)
	ctx, cancel := context.WithCancel(t.Context())
	w.SetFault(func(sandbox.Request) sandbox.Fault {
		cancel()
		return sandbox.Fault{Delay: time.Hour}
	})
	if _, err := c.try(ctx, w.PLCURL()+"/_health"); err == nil {
		t.Error("answered")
	}
	// The world's own end, in the cleanup, waits for the request too.
}

func TestRequestLogKnowsWhatWasAsked(t *testing.T) {
	t.Parallel()
	w := sandboxtest.Start(t, sandbox.Config{Seed: 42, Hosts: 2, Repos: 2, LogSize: 4})
	c := newClient(t)
	r := w.Repos()[1]
	address := xrpc(r.Host, listRecords, "repo", r.DID.String(), "collection", "com.example.note", "limit", "7", "cursor", "zz")
	before := time.Now()
	answer := c.get(address)
	log := w.Requests(func(r sandbox.Request) bool { return r.Method == listRecords })
	if len(log) != 1 {
		t.Fatalf("log: %+v", log)
	}
	got := log[0]
	if got.Part != sandbox.PartPDS || got.Host != r.Host || got.DID != r.DID.String() || got.Collection != "com.example.note" ||
		got.Limit != 7 || got.Cursor != "zz" || got.Status != 200 || got.Bytes != len(answer.body) || got.Number != 1 || got.Fault ||
		got.Started.Before(before) || got.Ended.Before(got.Started) {
		t.Errorf("log: %+v", got)
	}
	for range 10 {
		c.get(w.PLCURL() + "/" + r.DID.String())
	}
	if log := w.Requests(nil); len(log) != 4 || log[0].Number >= log[3].Number || log[3].Method != sandbox.MethodDID {
		t.Errorf("bounded log: %+v", log)
	}
	if w.Count(sandbox.PartPLC, sandbox.MethodDID) != 10 || w.Count(sandbox.PartPDS, listRecords) != 1 ||
		w.Count(sandbox.PartPDS, "") != 1 || w.CountAt(r.Host, "") != 1 || w.CountAt(w.Repos()[0].Host, "") != 0 {
		t.Error("counters are wrong")
	}
	w.ResetRequests()
	if log := w.Requests(nil); len(log) != 0 {
		t.Errorf("after the reset: %+v", log)
	}
}

func TestInFlightKeepsItsMaximum(t *testing.T) {
	t.Parallel()
	const many = 5
	w := sandboxtest.Start(t, sandbox.Config{Hosts: 1, Repos: 1})
	c := newClient(t)
	arrived, release := make(chan struct{}), make(chan struct{})
	w.SetFault(func(sandbox.Request) sandbox.Fault {
		arrived <- struct{}{}
		<-release
		return sandbox.Fault{}
	})
	done := make(chan error, many)
	for range many {
		go func() {
			_, err := c.try(t.Context(), w.HostURLs()[0]+"/xrpc/_health")
			done <- err
		}()
	}
	for range many {
		<-arrived
	}
	if now, most := w.InFlight(w.HostURLs()[0]); now != many || most != many {
		t.Errorf("in flight: %d, at most %d", now, most)
	}
	close(release)
	for range many {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if _, most := w.InFlight(w.HostURLs()[0]); most != many || w.Faults("") != 0 {
		t.Errorf("afterwards: at most %d, %d faults", most, w.Faults(""))
	}
}

func TestOnlyReadsAreAnswered(t *testing.T) {
	t.Parallel()
	w := sandboxtest.Start(t, sandbox.Config{Hosts: 1, Repos: 1})
	c := newClient(t)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, xrpc(w.HostURLs()[0], listRepos), http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusBadRequest {
		t.Errorf("POST: %d %s %v", resp.StatusCode, body, err)
	}
	if r := c.get(w.HostURLs()[0] + "/elsewhere"); r.status != http.StatusNotFound {
		t.Errorf("another path: %d", r.status)
	}
}
