package cmd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/identity"
	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/sandbox"
	"appview/server/control"
)

// runsWith runs a command line in this process that looks handles up in dir.
func runsWith(t *testing.T, handles handleResolver, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	out, errs := newOutput(), newOutput()
	code = (&program{handles: handles}).run(t.Context(), args, out, errs)
	return code, out.String(), errs.String()
}

func TestHandlesAreLookedUpByTheCommandLine(t *testing.T) {
	t.Parallel()
	world, dir := newWorld(t), t.TempDir()
	s := serveIn(t, world, dir)
	repos := world.Repos()
	handles := identity.NewMockDirectory()
	handles.Insert(identity.Identity{DID: repos[0].DID, Handle: "alice.example.com"})
	handles.Insert(identity.Identity{DID: repos[1].DID, Handle: "bob.example.com"})
	file := filepath.Join(t.TempDir(), "names")
	write(t, file, "# friends\n\n  @Bob.Example.com \r\n"+repos[2].DID.String()+"\n")

	code, stdout, stderr := runsWith(t, handles, "backfill", "create", "--watch", "--data-dir", dir,
		"--did", "at://alice.example.com", "--did", repos[0].DID.String(), "--dids-file", file)
	shown := fmt.Sprintf("alice.example.com is %s\nbob.example.com is %s\n", repos[0].DID, repos[1].DID)
	if code != exitOK || stderr != shown || !strings.Contains(stdout, "all collections of the repos that were named") || !strings.Contains(stdout, "3 of 3: ") {
		t.Errorf("ended with %d, printed:\n%s%s", code, stdout, stderr)
	}
	code, stdout, stderr = runsWith(t, handles, "backfill", "create", "--watch", "--data-dir", dir, "--did", "bob.example.com")
	if code != exitOK || !strings.Contains(stdout, "all collections of "+repos[1].DID.String()) {
		t.Errorf("ended with %d, printed:\n%s%s", code, stdout, stderr)
	}
	listed := want(t, exitOK, "completed", nil, "backfill", "list", "--data-dir", dir)
	before := strings.Count(listed, "\n")
	code, _, stderr = runsWith(t, handles, "backfill", "create", "--data-dir", dir, "--did", "alice.example.com", "--did", "carol.example.com", "--did", "dora.example.com")
	if code != exitError || !strings.Contains(stderr, "look up the handle carol.example.com: ") || !strings.Contains(stderr, "look up the handle dora.example.com: ") {
		t.Errorf("unknown handles: ended with %d: %s", code, stderr)
	}
	want(t, exitError, "did is an empty string", nil, "backfill", "create", "--data-dir", dir, "--did", "")
	want(t, exitError, "dids[1] is an empty string", nil, "backfill", "create", "--data-dir", dir, "--did", "did:web:a.example", "--did", "")
	want(t, exitError, "no valid DID", nil, "backfill", "create", "--data-dir", dir, "--did", "did:PLC:a", "--did", "did:web:a.example")
	listed = want(t, exitOK, "completed", nil, "backfill", "list", "--data-dir", dir)
	if strings.Count(listed, "\n") != before {
		t.Errorf("a request with a mistake made a job:\n%s", listed)
	}
	truth := len(world.TruthOf(repos[0].DID)) + len(world.TruthOf(repos[1].DID)) + len(world.TruthOf(repos[2].DID))
	if n := strings.Count(want(t, exitOK, "", nil, "records", "export", "--data-dir", dir), "\n"); n != truth {
		t.Errorf("%d records, want %d", n, truth)
	}
	for _, q := range world.Requests(nil) {
		if q.Part == sandbox.PartRelay {
			t.Errorf("the relay was asked: %+v", q)
		}
	}
	s.end()
}

func TestMistakesInNamesMakeNoRequest(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	empty, many, long := filepath.Join(dir, "empty"), filepath.Join(dir, "many"), filepath.Join(dir, "long")
	write(t, empty, "\n# nobody\n")
	write(t, many, strings.Repeat("alice.example.com\n", control.MaxDIDs+1))
	write(t, long, strings.Repeat("did:web:a.example\n", maxNamesFile/18+1))
	for text, args := range map[string][]string{
		"names no repo: leave the flag out":            {"--dids-file", empty},
		"501 repos are named, a job takes at most 500": {"--dids-file", many},
		"is larger than 4 MiB":                         {"--dids-file", long},
		"no such file":                                 {"--dids-file", filepath.Join(dir, "nothing")},
		"--dids-file: open :":                          {"--dids-file", ""},
		`"alice" is neither a DID nor a handle`:        {"--did", "alice"},
		`"DID:plc:x" is neither`:                       {"--did", "DID:plc:x"},
	} {
		want(t, exitUsage, text, nil, append([]string{"backfill", "create", "--url", "http://127.0.0.1:1", "--key", testKey}, args...)...)
	}
}

// TestHandlesAreFoundAtTheirHost shows it of the resolver that ships, whose ways
// out of the machine are closed here.
func TestHandlesAreFoundAtTheirHost(t *testing.T) {
	t.Parallel()
	const did = "did:plc:alice7777777777777777777"
	web := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path != "/.well-known/atproto-did" || !strings.HasPrefix(r.UserAgent(), "appview/"):
			http.NotFound(w, r)
		case r.Host == "alice.example.com":
			_, _ = w.Write([]byte(did + "\n"))
		case r.Host == "loop.example.com":
			http.Redirect(w, r, r.URL.Path, http.StatusFound)
		default:
			http.NotFound(w, r)
		}
	}))
	defer web.Close()
	handles := newHandles()
	handles.Resolver.PreferGo = true
	handles.Resolver.Dial = func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no DNS in tests") }
	guarded, isTransport := handles.HTTPClient.Transport.(*http.Transport)
	if !isTransport {
		t.Fatalf("transport is a %T", handles.HTTPClient.Transport)
	}
	if conn, err := guarded.DialContext(t.Context(), "tcp", web.Listener.Addr().String()); err == nil {
		t.Errorf("a private address was dialled: %s", errors.Join(conn.Close()))
	}
	open, isTransport := web.Client().Transport.(*http.Transport)
	if !isTransport {
		t.Fatalf("transport is a %T", web.Client().Transport)
	}
	open = open.Clone()
	open.TLSClientConfig.InsecureSkipVerify = true // its certificate has another name
	open.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, web.Listener.Addr().String())
	}
	handles.HTTPClient.Transport = open
	if got, err := handles.ResolveHandle(t.Context(), "alice.example.com"); err != nil || got != did {
		t.Errorf("alice is %s, %v", got, err)
	}
	for _, handle := range []syntax.Handle{"bob.example.com", "loop.example.com", "alice.local"} {
		if got, err := handles.ResolveHandle(t.Context(), handle); err == nil {
			t.Errorf("%s is %s", handle, got)
		}
	}
	open.CloseIdleConnections()
}

// silentHandles finds nobody, without an error.
type silentHandles struct{}

func (silentHandles) ResolveHandle(context.Context, syntax.Handle) (syntax.DID, error) {
	return "", nil
}

func TestHandleOfNobodyIsAnError(t *testing.T) {
	t.Parallel()
	code, _, stderr := runsWith(t, silentHandles{}, "backfill", "create", "--url", "http://127.0.0.1:1", "--key", testKey, "--did", "alice.example.com")
	if code != exitError || !strings.Contains(stderr, "look up the handle alice.example.com: no account was found") {
		t.Errorf("ended with %d: %s", code, stderr)
	}
}
