//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"golang.org/x/sync/errgroup"
)

const (
	listingLimit  = 2 * time.Minute // until the directory has heard of every repo
	canaryPattern = "com.example.e2e.canary"
	nodeHeap      = "--max-old-space-size=768" // MiB
	goHeap        = "GOMEMLIMIT=512MiB"
)

// parts is the folder that the real parts are installed in.
type parts struct {
	dir     string
	scripts string // the folder that our own scripts see node_modules from
}

func installedParts(t *testing.T) *parts {
	t.Helper()
	p := &parts{dir: os.Getenv("E2E_PARTS"), scripts: t.TempDir()}
	if p.dir == "" {
		t.Fatal("E2E_PARTS is not set: run this by make e2e, which installs the real parts")
	}
	// A module is looked for beside the script that imports it.
	if err := os.Symlink(filepath.Join(p.dir, "node_modules"), filepath.Join(p.scripts, "node_modules")); err != nil {
		t.Fatalf("make the parts visible: %v", err)
	}
	scripts, err := filepath.Glob("real/*.mjs")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("find the parts' scripts: %d found, error %v", len(scripts), err)
	}
	for _, s := range scripts {
		p.show(t, s)
	}
	return p
}

// show puts one of our scripts where it finds the parts' modules.
func (p *parts) show(t *testing.T, script string) {
	t.Helper()
	b, err := os.ReadFile(script)
	if err == nil {
		err = os.WriteFile(filepath.Join(p.scripts, filepath.Base(script)), b, 0o600)
	}
	if err != nil {
		t.Fatalf("copy %s: %v", script, err)
	}
}

// node runs one of our scripts over the parts' Node.
func (p *parts) node(t *testing.T, name string, env []string, script string, args ...string) *process {
	t.Helper()
	argv := append([]string{filepath.Join(p.dir, "node"), nodeHeap, filepath.Join(p.scripts, script)}, args...)
	return start(t, name, env, argv...)
}

// network is a whole network of real parts on loopback.
type network struct {
	parts     *parts
	plc       endpoint // the front, as everybody sees it
	rotation  *atcrypto.PrivateKeyK256
	pdses     []*pds
	relay     endpoint // relay and collection directory under one address
	directory endpoint
}

// startNetwork runs everything and returns when a record written to any PDS
// is known to reach the collection directory.
func startNetwork(t *testing.T) *network {
	t.Helper()
	parts := installedParts(t)
	rotation, err := atcrypto.GeneratePrivateKeyK256()
	if err != nil {
		t.Fatalf("make a rotation key: %v", err)
	}
	n := &network{parts: parts, rotation: rotation}
	ports := freePorts(t, 7)
	n.plc = startPLC(t, parts, ports[0])
	n.pdses = []*pds{
		startPDS(t, parts, "p1", ports[1], n.plc, n.rotation),
		startPDS(t, parts, "p2", ports[2], n.plc, n.rotation),
	}
	relay := startRelay(t, parts, ports[3], ports[4], n)
	n.directory = startDirectory(t, parts, ports[5], ports[6], relay)
	n.relay = serve(t, joined(t, relay, n.directory))

	ctx, cancel := context.WithTimeout(t.Context(), startLimit)
	defer cancel()
	for i := range n.pdses {
		if err := n.canary(ctx, i); err != nil {
			t.Fatalf("nothing gets from PDS %d through the relay to the collection directory: %v", i, err)
		}
	}
	return n
}

func startPLC(t *testing.T, parts *parts, port int) endpoint {
	t.Helper()
	directory := loopback(port)
	parts.node(t, "plc", []string{"PLC_PORT=" + strconv.Itoa(port), "LOG_ENABLED=true"}, "plc.mjs").
		ready(t, func(ctx context.Context) error { return directory.get(ctx, "/_health", nil, "", nil) })
	front, err := newPLCFront(directory)
	if err != nil {
		t.Fatal(err)
	}
	return serve(t, front)
}

// startRelay runs the relay twice: once to make its tables, into which the
// PDSes are then put, and once to work. It would refuse loopback hosts that it
// is told of by request.
func startRelay(t *testing.T, parts *parts, port, metrics int, n *network) endpoint {
	t.Helper()
	relay := loopback(port)
	data := t.TempDir()
	file := filepath.Join(data, "relay.sqlite")
	run := func() *process {
		p := start(t, "relay", []string{goHeap}, filepath.Join(parts.dir, "relay"),
			"--plc-host", string(n.plc), "--admin-password", adminPassword,
			"serve", "--db-url", "sqlite://"+file, "--persist-dir", filepath.Join(data, "persist"),
			"--bind", address(port), "--metrics-listen", address(metrics),
			"--allow-insecure-hosts", "--disable-request-crawl")
		p.ready(t, func(ctx context.Context) error { return relay.get(ctx, "/xrpc/_health", nil, "", nil) })
		return p
	}
	if err := run().stop(); err != nil {
		t.Fatalf("stop the relay after it made its tables: %v", err)
	}
	hosts := []string{file}
	for _, p := range n.pdses {
		hosts = append(hosts, strings.TrimPrefix(string(p.endpoint), "http://"))
	}
	insert := parts.node(t, "relay-hosts", nil, "hosts.mjs", hosts...)
	if err := insert.wait(); err != nil {
		t.Fatalf("put the PDSes into the relay's tables: %v\n%s", err, insert.tail())
	}
	run()
	return relay
}

func startDirectory(t *testing.T, parts *parts, port, metrics int, relay endpoint) endpoint {
	t.Helper()
	directory := loopback(port)
	data := t.TempDir()
	dau := filepath.Join(data, "dau")
	if err := os.Mkdir(dau, 0o700); err != nil {
		t.Fatalf("folder of the collection directory: %v", err)
	}
	start(t, "collectiondir", []string{goHeap}, filepath.Join(parts.dir, "collectiondir"), "serve",
		"--upstream", "ws"+strings.TrimPrefix(string(relay), "http"),
		"--pebble", filepath.Join(data, "pebble"), "--dau-directory", dau,
		"--api-listen", address(port), "--metrics-listen", address(metrics), "--clist-min-dids", "1").
		ready(t, func(ctx context.Context) error { return directory.get(ctx, "/_health", nil, "", nil) })
	return directory
}

// joined answers for relay and collection directory under one address, as the
// public relays do.
func joined(t *testing.T, relay, directory endpoint) http.Handler {
	t.Helper()
	mux := http.NewServeMux()
	for path, to := range map[string]endpoint{"/": relay, "/xrpc/com.atproto.sync.listReposByCollection": directory} {
		h, err := proxyTo(to)
		if err != nil {
			t.Fatal(err)
		}
		mux.Handle(path, h)
	}
	return mux
}

// canary writes records to one PDS until the collection directory lists their
// author: the directory learns only what passes while it is connected.
func (n *network) canary(ctx context.Context, i int) error {
	author, err := n.pdses[i].createAccount(ctx, "canary"+strconv.Itoa(i+1))
	if err != nil {
		return err
	}
	collection := canaryPattern + strconv.Itoa(i+1)
	return eventually(ctx, func(ctx context.Context) error {
		if err := author.apply(ctx, createWrite(collection, "", map[string]any{"$type": collection})); err != nil {
			return err
		}
		return n.lists(ctx, collection, author.did)
	})
}

// listing is every DID that the collection directory names for a collection.
func (n *network) listing(ctx context.Context, collection string) ([]string, error) {
	var dids []string
	q := url.Values{"collection": {collection}, "limit": {"1000"}}
	for {
		var page struct {
			Repos []struct {
				DID string `json:"did"`
			} `json:"repos"`
			Cursor string `json:"cursor"`
		}
		if err := n.relay.get(ctx, "/xrpc/com.atproto.sync.listReposByCollection", q, "", &page); err != nil {
			return nil, err
		}
		for _, r := range page.Repos {
			dids = append(dids, r.DID)
		}
		if page.Cursor == "" || len(page.Repos) == 0 {
			return dids, nil
		}
		q.Set("cursor", page.Cursor)
	}
}

// lists is nil when the collection directory names all the DIDs.
func (n *network) lists(ctx context.Context, collection string, dids ...string) error {
	all, err := n.listing(ctx, collection)
	if err != nil {
		return err
	}
	for _, did := range dids {
		if !slices.Contains(all, did) {
			return fmt.Errorf("%s is not among the %d repos listed for %s", did, len(all), collection)
		}
	}
	return nil
}

// waitListed waits until the collection directory names every repo that has
// records of the collections.
func (n *network) waitListed(ctx context.Context, truth map[string]listed, collections ...string) error {
	ctx, cancel := context.WithTimeout(ctx, listingLimit)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	for _, c := range collections {
		var dids []string
		for uri := range truth {
			did, collection := splitURI(uri)
			if collection == c && !slices.Contains(dids, did) {
				dids = append(dids, did)
			}
		}
		g.Go(func() error {
			return eventually(ctx, func(ctx context.Context) error { return n.lists(ctx, c, dids...) })
		})
	}
	return g.Wait()
}

// truth is every record of the network by its URI, as the PDSes themselves
// show it: of active accounts, at the PDS that the DID document names.
func (n *network) truth(ctx context.Context) (map[string]listed, error) {
	truth := map[string]listed{}
	for _, p := range n.pdses {
		dids, err := p.active(ctx)
		if err != nil {
			return nil, err
		}
		for _, did := range dids {
			home, err := n.home(ctx, did)
			if err != nil {
				return nil, err
			}
			if home != string(p.endpoint) {
				continue
			}
			collections, err := p.collections(ctx, did)
			if err != nil {
				return nil, err
			}
			for _, c := range collections {
				records, err := p.records(ctx, did, c)
				if err != nil {
					return nil, err
				}
				for _, r := range records {
					truth[r.URI] = r
				}
			}
		}
	}
	return truth, nil
}

// home is the PDS that an account's DID document names; empty if it is tombstoned.
func (n *network) home(ctx context.Context, did string) (string, error) {
	var doc struct {
		Service []struct {
			ID       string `json:"id"`
			Endpoint string `json:"serviceEndpoint"`
		} `json:"service"`
	}
	if err := n.plc.get(ctx, "/"+did, nil, "", &doc); err != nil {
		if failed, ok := errors.AsType[*statusError](err); ok && failed.Status == http.StatusGone {
			return "", nil
		}
		return "", err
	}
	for _, s := range doc.Service {
		if s.ID == "#atproto_pds" {
			return s.Endpoint, nil
		}
	}
	return "", fmt.Errorf("the DID document of %s names no PDS", did)
}

// splitURI is the DID and the collection of an AT-URI.
func splitURI(uri string) (did, collection string) {
	did, rest, _ := strings.Cut(strings.TrimPrefix(uri, "at://"), "/")
	collection, _, _ = strings.Cut(rest, "/")
	return did, collection
}

// serve answers on a loopback address until the test ends.
func serve(t *testing.T, h http.Handler) endpoint {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return endpoint(s.URL)
}

func address(port int) string { return "127.0.0.1:" + strconv.Itoa(port) }

func loopback(port int) endpoint { return endpoint("http://" + address(port)) }
