package sandbox_test

import (
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/identity"
	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/sandbox"
	"appview/internal/sandbox/sandboxtest"
)

// discover reads one of the relay's listings to its end.
func (c *client) discover(relay, method string, limit int, collection syntax.NSID) []syntax.DID {
	c.tb.Helper()
	var all []syntax.DID
	cursor := ""
	for {
		var page struct {
			Repos  []struct{ DID syntax.DID }
			Cursor string
		}
		c.into(&page, xrpc(relay, method, "limit", strconv.Itoa(limit), "collection", collection.String(), "cursor", cursor))
		if len(page.Repos) > limit {
			c.tb.Fatalf("page of %d, asked for %d", len(page.Repos), limit)
		}
		for _, r := range page.Repos {
			all = append(all, r.DID)
		}
		if page.Cursor == "" {
			return all
		}
		if method == listReposByCollection && (!strings.ContainsRune(page.Cursor, '+') || !strings.ContainsRune(page.Cursor, '/') || !strings.ContainsRune(page.Cursor, '=')) {
			c.tb.Errorf("cursor %q tests no encoding", page.Cursor)
		}
		cursor = page.Cursor
	}
}

func TestCollectionListingNamesEveryRepoOnce(t *testing.T) {
	t.Parallel()
	w := sandboxtest.Start(t, sandbox.Config{Seed: 31, Hosts: 3, Repos: 60})
	c := newClient(t)
	want := map[syntax.DID]bool{}
	for _, r := range w.Truth(sandbox.StatusCollection) {
		want[r.DID] = true
	}
	first := c.discover(w.RelayURL(), listReposByCollection, 2000, sandbox.StatusCollection)
	if len(first) != len(want) || slices.ContainsFunc(first, func(did syntax.DID) bool { return !want[did] }) {
		t.Errorf("listed %d repos, want %d", len(first), len(want))
	}
	for _, limit := range []int{1, 7, len(first)} {
		if again := c.discover(w.RelayURL(), listReposByCollection, limit, sandbox.StatusCollection); !slices.Equal(again, first) {
			t.Errorf("limit %d: listed %v", limit, again)
		}
	}

	// Nothing that happens to a repo takes it off the listing.
	for i, change := range []func(syntax.DID) error{
		w.Deactivate, w.TakeDown, w.DeleteAccount, w.Tombstone,
		func(did syntax.DID) error { _, err := w.Empty(did); return err },
	} {
		if err := change(first[i]); err != nil {
			t.Fatal(err)
		}
	}
	late, err := w.AddRepo(w.HostURLs()[1])
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := w.Create(late, sandbox.StatusCollection, "", map[string]any{"status": "🌱"}); err != nil {
			t.Fatal(err)
		}
	}
	if again := c.discover(w.RelayURL(), listReposByCollection, 10, sandbox.StatusCollection); !slices.Equal(again, append(slices.Clone(first), late)) {
		t.Errorf("after changes: %v", again)
	}
	w.Forget(first[7])
	if again := c.discover(w.RelayURL(), listReposByCollection, 10, sandbox.StatusCollection); len(again) != len(first) || slices.Contains(again, first[7]) {
		t.Errorf("after forgetting: %v", again)
	}
	w.Remember(first[7])
	if again := c.discover(w.RelayURL(), listReposByCollection, 10, sandbox.StatusCollection); again[7] != first[7] {
		t.Errorf("after remembering: %v", again)
	}
	if none := c.discover(w.RelayURL(), listReposByCollection, 500, "org.example.nobody"); len(none) != 0 {
		t.Errorf("an unknown collection lists %v", none)
	}
}

func TestCollectionListingRefusesBadCursor(t *testing.T) {
	t.Parallel()
	w := sandboxtest.Start(t, sandbox.Config{Repos: 20})
	c := newClient(t)
	var page struct{ Cursor string }
	c.into(&page, xrpc(w.RelayURL(), listReposByCollection, "collection", sandbox.StatusCollection.String(), "limit", "2"))
	raw := w.RelayURL() + "/xrpc/" + listReposByCollection + "?collection=" + sandbox.StatusCollection.String() + "&cursor=" + page.Cursor
	c.wantError(raw, 500, "DatabaseError", "failed to read DIDs for collection")
	if r := c.get(xrpc(w.RelayURL(), listReposByCollection, "collection", "note")); r.status != http.StatusBadRequest {
		t.Errorf("a bad NSID: %d %s", r.status, r.body)
	}
}

func TestRelayListsActiveRepos(t *testing.T) {
	t.Parallel()
	w := sandboxtest.Start(t, sandbox.Config{Seed: 32, Hosts: 2, Repos: 25})
	c := newClient(t)
	all := w.Repos()
	for _, err := range []error{w.TakeDown(all[0].DID), w.DeleteAccount(all[3].DID)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	w.Forget(all[24].DID)
	var want []syntax.DID
	for i, r := range all {
		if i != 0 && i != 3 && i != 24 {
			want = append(want, r.DID)
		}
	}
	for _, limit := range []int{2, 11, 22, 1000} {
		if got := c.discover(w.RelayURL(), listRepos, limit, ""); !slices.Equal(got, want) {
			t.Errorf("limit %d: %v", limit, got)
		}
	}
	if one := c.discover(w.RelayURL(), listRepos, 1, ""); len(one) != 1 {
		t.Errorf("a page of one has a cursor: %v", one)
	}
	c.wantError(xrpc(w.RelayURL(), listRepos, "limit", "1001"), 400, "BadRequest", "limit parameter invalid: 1001")
	c.wantError(xrpc(w.RelayURL(), getLatestCommit, "did", all[3].DID.String()), 403, "RepoDeleted", "account not active (deleted)")
	c.wantError(xrpc(w.RelayURL(), getRepoStatus, "did", all[24].DID.String()), 404, "RepoNotFound", "account not found")
	var status statusAnswer
	c.into(&status, xrpc(w.RelayURL(), getRepoStatus, "did", all[1].DID.String()))
	if !status.Active || status.Rev != all[1].Rev {
		t.Errorf("status at the relay: %+v", status)
	}
}

func TestRelaySendsGetRepoToTheHost(t *testing.T) {
	t.Parallel()
	w := sandboxtest.Start(t, sandbox.Config{Hosts: 3, Repos: 3})
	c := newClient(t)
	for _, r := range w.Repos() {
		got := c.get(xrpc(w.RelayURL(), getRepo, "did", r.DID.String()))
		if want := xrpc(r.Host, getRepo, "did", r.DID.String()); got.status != http.StatusFound || got.header.Get("Location") != want {
			t.Errorf("%d to %q, want %s", got.status, got.header.Get("Location"), want)
		}
	}
}

func TestRelayThatIsNotWell(t *testing.T) {
	t.Parallel()
	w := sandboxtest.Start(t, sandbox.Config{Repos: 4})
	c := newClient(t)
	listing := xrpc(w.RelayURL(), listReposByCollection, "collection", sandbox.StatusCollection.String())
	w.SetRelay(sandbox.RelayDown)
	if r, err := c.try(t.Context(), listing); err == nil {
		t.Errorf("down: %d", r.status)
	}
	for mode, want := range map[sandbox.RelayMode]int{sandbox.RelayBadGateway: 502, sandbox.RelayNotFound: 404, sandbox.RelayNoCollections: 501} {
		w.SetRelay(mode)
		if r := c.get(listing); r.status != want {
			t.Errorf("mode %d: %d, want %d", mode, r.status, want)
		}
		health := c.get(w.RelayURL() + "/xrpc/_health")
		if (health.status == http.StatusOK) != (mode != sandbox.RelayBadGateway) {
			t.Errorf("mode %d: health is %d", mode, health.status)
		}
	}
	w.SetRelay(sandbox.RelayUp)
	if r := c.get(listing); r.status != http.StatusOK {
		t.Errorf("up again: %d", r.status)
	}
}

func TestDirectoryOfDIDs(t *testing.T) {
	t.Parallel()
	w := sandboxtest.Start(t, sandbox.Config{Repos: 4})
	c := newClient(t)
	dir := identity.BaseDirectory{PLCURL: w.PLCURL(), HTTPClient: *c.http, SkipHandleVerification: true}
	for i, r := range w.Repos() {
		ident, err := dir.LookupDID(t.Context(), r.DID)
		if err != nil {
			t.Fatal(err)
		}
		handle, err := ident.DeclaredHandle()
		if err != nil || handle.String() != r.Handle || ident.PDSEndpoint() != r.Host {
			t.Errorf("%s is %s at %s (%v), want %+v", r.DID, handle, ident.PDSEndpoint(), err, r)
		}
		if key := ident.Keys["atproto"]; key.Type != "Multikey" || (i%2 == 0) != strings.HasPrefix(key.PublicKeyMultibase, "zQ3sh") {
			t.Errorf("key of account %d: %+v", i, key)
		}
	}
	gone := w.Repos()[1].DID
	if err := w.Tombstone(gone); err != nil {
		t.Fatal(err)
	}
	if r := c.get(w.PLCURL() + "/" + gone.String()); r.status != http.StatusGone || string(r.body) != `{"message":"DID not available: `+gone.String()+`"}` {
		t.Errorf("tombstoned: %d %s", r.status, r.body)
	}
	if _, err := dir.LookupDID(t.Context(), "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"); !errors.Is(err, identity.ErrDIDNotFound) {
		t.Errorf("unknown: %v", err)
	}
	if r := c.get(w.PLCURL() + "/_health"); r.status != http.StatusOK {
		t.Errorf("health: %d", r.status)
	}
}

func TestTheRelayEstimates(t *testing.T) {
	t.Parallel()
	w := sandboxtest.Start(t, sandbox.Config{Seed: 34, Hosts: 3, Repos: 60})
	c := newClient(t)
	var counted struct{ Collections map[syntax.NSID]int }
	address := w.RelayURL() + "/v1/listCollections?c=" + sandbox.StatusCollection.String() + "&c=com.example.unheard"
	c.into(&counted, address)
	if want := len(c.discover(w.RelayURL(), listReposByCollection, 2000, sandbox.StatusCollection)); len(counted.Collections) != 1 || counted.Collections[sandbox.StatusCollection] != want {
		t.Errorf("counted %v, want %d repos of one collection", counted.Collections, want)
	}
	accounts, cursor := map[string]int{}, ""
	for page := 0; page == 0 || cursor != ""; page++ {
		var hosts struct {
			Hosts []struct {
				Hostname     string
				AccountCount int
			}
			Cursor string
		}
		c.into(&hosts, xrpc(w.RelayURL(), "com.atproto.sync.listHosts", "limit", "2", "cursor", cursor))
		for _, h := range hosts.Hosts {
			accounts["http://"+h.Hostname] += h.AccountCount
		}
		cursor = hosts.Cursor
	}
	for _, url := range w.HostURLs() {
		if accounts[url] != 20 {
			t.Errorf("%d accounts on %s, want 20: %v", accounts[url], url, accounts)
		}
	}
	w.SetRelay(sandbox.RelayNoEstimates)
	c.wantError(xrpc(w.RelayURL(), "com.atproto.sync.listHosts"), http.StatusNotImplemented, "MethodNotImplemented", "Method Not Implemented")
	if r := c.get(address); r.status != http.StatusNotFound {
		t.Errorf("a relay without estimates answers %d %s", r.status, r.body)
	}
}
