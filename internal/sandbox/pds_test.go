package sandbox_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/sandbox"
	"appview/internal/sandbox/sandboxtest"
)

func TestPagingBothWaysIsTheTruth(t *testing.T) {
	t.Parallel()
	w := sandboxtest.Start(t, sandbox.Config{Seed: 21, Hosts: 2, Repos: 8, LargeRepos: 1, Odd: 0.05})
	c := newClient(t)
	for _, r := range w.Repos() {
		for _, collection := range []syntax.NSID{sandbox.StatusCollection, sandbox.NoteCollection, sandbox.UnknownCollection} {
			truth := w.TruthOf(r.DID, collection)
			for _, limit := range []int{1, 7, 100} {
				if len(truth) > 1000 && limit == 1 {
					continue
				}
				down := c.list(r.Host, r.DID, collection, limit, false)
				got := make(map[string]listed, len(down))
				for i, l := range down {
					got[l.URI] = l
					if i > 0 && rkeyOf(down[i-1]) <= rkeyOf(l) {
						t.Errorf("%s comes after %s", l.URI, down[i-1].URI)
					}
				}
				wantTruth(t, got, truth)
				up := c.list(r.Host, r.DID, collection, limit, true)
				slices.Reverse(up)
				if !slices.EqualFunc(up, down, func(x, y listed) bool { return x.URI == y.URI && x.CID == y.CID }) {
					t.Errorf("%s %s: ascending differs from descending", r.DID, collection)
				}
			}
		}
	}
}

func rkeyOf(l listed) string { return l.URI[strings.LastIndexByte(l.URI, '/')+1:] }

func TestListRecordsDefaultPageIsFifty(t *testing.T) {
	t.Parallel()
	w := sandboxtest.Start(t, sandbox.Config{Hosts: 1, Repos: 1, LargeRepos: 1})
	c := newClient(t)
	var page struct{ Records []listed }
	r := w.Repos()[0]
	c.into(&page, xrpc(r.Host, listRecords, "repo", r.DID.String(), "collection", sandbox.StatusCollection.String()))
	if len(page.Records) != 50 {
		t.Errorf("a page has %d records", len(page.Records))
	}
	c.into(&page, xrpc(r.Host, listRecords, "repo", r.Handle, "collection", sandbox.StatusCollection.String(), "limit", "3"))
	if len(page.Records) != 3 {
		t.Errorf("by handle: a page has %d records", len(page.Records))
	}
}

func TestListRecordsWithCursorThatIsGone(t *testing.T) {
	t.Parallel()
	w := sandboxtest.Start(t, sandbox.Config{Hosts: 1, Repos: 1, Collections: []sandbox.Collection{}})
	c := newClient(t)
	r := w.Repos()[0]
	for _, rkey := range []syntax.RecordKey{"a", "b", "d", "e"} {
		if _, err := w.Create(r.DID, sandbox.NoteCollection, rkey, map[string]any{"text": "x"}); err != nil {
			t.Fatal(err)
		}
	}
	for reverse, want := range map[string]string{"false": "ba", "true": "de"} {
		var page struct{ Records []listed }
		c.into(&page, xrpc(r.Host, listRecords, "repo", r.DID.String(), "collection", sandbox.NoteCollection.String(),
			"cursor", "c", "reverse", reverse))
		got := ""
		for _, l := range page.Records {
			got += rkeyOf(l)
		}
		if got != want {
			t.Errorf("reverse %s from c: %s, want %s", reverse, got, want)
		}
	}
}

func TestGetRecordIsWhatListRecordsSays(t *testing.T) {
	t.Parallel()
	w := sandboxtest.Start(t, sandbox.Config{Seed: 22, Hosts: 2, Repos: 6})
	c := newClient(t)
	for _, r := range w.Truth() {
		host := account(t, w, r.DID).Host
		var got listed
		for _, want := range []string{"", r.CID} {
			c.into(&got, xrpc(host, getRecord, "repo", r.DID.String(), "collection", r.Collection.String(), "rkey", r.RKey.String(), "cid", want))
			if got.URI != r.URI || got.CID != r.CID || string(got.Value) != string(r.Value) {
				t.Errorf("getRecord %s: %+v, want %+v", r.URI, got, r)
			}
		}
		c.wantError(xrpc(host, getRecord, "repo", r.DID.String(), "collection", r.Collection.String(), "rkey", r.RKey.String(), "cid", "bafyother"),
			400, "RecordNotFound", "Could not locate record: "+r.URI)
	}
}

func TestBadParametersAreRefusedLikeThePDSDoes(t *testing.T) {
	t.Parallel()
	w := sandboxtest.Start(t, sandbox.Config{Hosts: 1, Repos: 1})
	c := newClient(t)
	r := w.Repos()[0]
	did, nsid := r.DID.String(), sandbox.NoteCollection.String()
	for _, bad := range []struct {
		method  string
		params  []string
		message string
	}{
		{listRecords, []string{"collection", nsid}, `Error: Params must have the property "repo"`},
		{listRecords, []string{"repo", did}, `Error: Params must have the property "collection"`},
		{listRecords, []string{"repo", "nobody", "collection", nsid}, "Error: repo must be a valid did or a handle"},
		{listRecords, []string{"repo", did, "collection", "note"}, "Error: collection must be a valid nsid"},
		{listRecords, []string{"repo", did, "collection", nsid, "limit", "101"}, "Error: limit can not be greater than 100"},
		{listRecords, []string{"repo", did, "collection", nsid, "limit", "0"}, "Error: limit can not be less than 1"},
		{listRecords, []string{"repo", did, "collection", nsid, "limit", "ten"}, "Error: limit must be an integer"},
		{listRecords, []string{"repo", did, "collection", nsid, "reverse", "1"}, "Error: reverse must be a boolean"},
		{getRecord, []string{"repo", did, "collection", nsid}, `Error: Params must have the property "rkey"`},
		{getRecord, []string{"repo", did, "collection", nsid, "rkey", "a/b"}, "Error: rkey must be a valid record key"},
		{getRepo, nil, `Error: Params must have the property "did"`},
		{getRepoStatus, []string{"did", r.Handle}, "Error: did must be a valid did"},
		{listRepos, []string{"limit", "1001"}, "Error: limit can not be greater than 1000"},
		{listRepos, []string{"cursor", "x"}, "Malformed cursor"},
	} {
		c.wantError(xrpc(r.Host, bad.method, bad.params...), 400, "InvalidRequest", bad.message)
	}
	c.wantError(xrpc(r.Host, "com.atproto.sync.getBlocks"), 501, "MethodNotImplemented", "Method Not Implemented")
}

func TestInactiveAccountsAnswerLikeThePDSDoes(t *testing.T) {
	t.Parallel()
	w := sandboxtest.Start(t, sandbox.Config{Seed: 23, Hosts: 2, Repos: 10})
	c := newClient(t)
	unknown := syntax.DID("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa")
	all := w.Repos()
	for i, change := range []func(syntax.DID) error{w.Deactivate, w.TakeDown, w.Suspend, w.DeleteAccount} {
		if err := change(all[i].DID); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Move(all[4].DID, all[5].Host); err != nil {
		t.Fatal(err)
	}
	for _, one := range []struct {
		did         syntax.DID
		host        string
		status      string // of getRepoStatus; empty: RepoNotFound
		name, about string
	}{
		{all[0].DID, all[0].Host, "deactivated", "RepoDeactivated", "Repo has been deactivated: "},
		{all[1].DID, all[1].Host, "takendown", "RepoTakendown", "Repo has been takendown: "},
		{all[2].DID, all[2].Host, "suspended", "RepoSuspended", "Repo has been suspended: "},
		{all[3].DID, all[3].Host, "", "RepoNotFound", "Could not find repo for DID: "},
		{all[4].DID, all[4].Host, "deactivated", "RepoDeactivated", "Repo has been deactivated: "},
		{all[6].DID, all[7].Host, "", "RepoNotFound", "Could not find repo for DID: "},
		{unknown, all[0].Host, "", "RepoNotFound", "Could not find repo for DID: "},
	} {
		did := one.did.String()
		c.wantError(xrpc(one.host, listRecords, "repo", did, "collection", "com.example.note"), 400, "InvalidRequest", "Could not find repo: "+did)
		c.wantError(xrpc(one.host, getRecord, "repo", did, "collection", "com.example.note", "rkey", "a"),
			400, "RecordNotFound", "Could not locate record: at://"+did+"/com.example.note/a")
		for _, method := range []string{getRepo, getLatestCommit} {
			c.wantError(xrpc(one.host, method, "did", did), 400, one.name, one.about+did)
		}
		c.wantError(xrpc(one.host, describeRepo, "repo", did), 400, one.name, one.about+did)
		if one.status == "" {
			c.wantError(xrpc(one.host, getRepoStatus, "did", did), 400, one.name, one.about+did)
			continue
		}
		var status map[string]any
		c.into(&status, xrpc(one.host, getRepoStatus, "did", did))
		if _, hasRev := status["rev"]; hasRev || status["active"] != false || status["status"] != one.status || status["did"] != did {
			t.Errorf("getRepoStatus of %s at %s: %v, want %s", did, one.host, status, one.status)
		}
	}
	for _, did := range []syntax.DID{all[0].DID, all[1].DID, all[2].DID} {
		if err := w.Activate(did); err != nil {
			t.Fatal(err)
		}
	}
	wantTruth(t, c.readAll(w), w.Truth())
	if got := account(t, w, all[0].DID).Rev; got != all[0].Rev {
		t.Errorf("deactivating moved the rev from %s to %s", all[0].Rev, got)
	}
}

type statusAnswer struct {
	Active bool
	Status string
	Rev    syntax.TID
}

func TestMovedAccountIsServedByItsNewHost(t *testing.T) {
	t.Parallel()
	w := sandboxtest.Start(t, sandbox.Config{Seed: 24, Hosts: 2, Repos: 4})
	c := newClient(t)
	for _, before := range w.Repos() {
		other := w.HostURLs()[0]
		if other == before.Host {
			other = w.HostURLs()[1]
		}
		old, _ := readCAR(t, w, c, before.DID)
		for _, to := range []string{other, before.Host, other} {
			if err := w.Move(before.DID, to); err != nil {
				t.Fatal(err)
			}
			moved, records := readCAR(t, w, c, before.DID) // with the new key and host of the DID document
			if moved.Rev <= old.Rev || len(records) != before.Records {
				t.Errorf("%s moved from %s with %d records to %s with %d", before.DID, old.Rev, before.Records, moved.Rev, len(records))
			}
			old = moved
			var status statusAnswer
			c.into(&status, xrpc(to, getRepoStatus, "did", before.DID.String()))
			if !status.Active || status.Rev.String() != moved.Rev {
				t.Errorf("%s at its new host: %+v", before.DID, status)
			}
		}
		if err := w.Move(before.DID, other); err == nil {
			t.Error("an account moved to where it is")
		}
	}
}

func TestHostListsItsRepos(t *testing.T) {
	t.Parallel()
	w := sandboxtest.Start(t, sandbox.Config{Seed: 25, Hosts: 2, Repos: 14, Collections: []sandbox.Collection{}})
	c := newClient(t)
	all := w.Repos()
	host, other := all[0].Host, all[1].Host
	oldHead, err := w.HeadCID(all[6].DID)
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{w.TakeDown(all[2].DID), w.DeleteAccount(all[4].DID), w.Move(all[6].DID, other)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, limit := range []int{1, 3, 6, 1000} {
		got, cursor := map[syntax.DID]string{}, ""
		for {
			var page struct {
				Cursor string
				Repos  []struct {
					DID       syntax.DID
					Head, Rev string
					Active    bool
					Status    string
				}
			}
			c.into(&page, xrpc(host, listRepos, "limit", strconv.Itoa(limit), "cursor", cursor))
			for _, r := range page.Repos {
				if _, again := got[r.DID]; again {
					t.Errorf("%s is listed twice", r.DID)
				}
				got[r.DID] = r.Status
				head, err := w.HeadCID(r.DID)
				if r.Status == "deactivated" {
					head = oldHead // it moved on at its new host
				}
				if err != nil || head != r.Head || r.Active != (r.Status == "") {
					t.Errorf("listed %+v, head is %s (%v)", r, head, err)
				}
			}
			if (page.Cursor == "") != (len(page.Repos) == 0) {
				t.Fatalf("page of %d has cursor %q", len(page.Repos), page.Cursor)
			}
			if cursor = page.Cursor; cursor == "" {
				break
			}
		}
		want := map[syntax.DID]string{
			all[0].DID: "", all[2].DID: "takendown", all[6].DID: "deactivated",
			all[8].DID: "", all[10].DID: "", all[12].DID: "",
		}
		if len(got) != len(want) {
			t.Errorf("limit %d: listed %v", limit, got)
		}
		for did, status := range want {
			if s, ok := got[did]; !ok || s != status {
				t.Errorf("limit %d: %s is listed as %q (%t), want %q", limit, did, s, ok, status)
			}
		}
	}
}

func TestRateLimitRefusesWithHeaders(t *testing.T) {
	t.Parallel()
	w := sandboxtest.Start(t, sandbox.Config{Hosts: 2, Repos: 2, RateLimit: 3})
	c := newClient(t)
	r := w.Repos()[0]
	address := xrpc(r.Host, getRepoStatus, "did", r.DID.String())
	for want := 2; want >= 0; want-- {
		got := c.get(address)
		if got.status != http.StatusOK || got.header.Get("RateLimit-Remaining") != strconv.Itoa(want) || got.header.Get("RateLimit-Policy") != "3;w=300" {
			t.Errorf("want %d left: %d %v", want, got.status, got.header)
		}
	}
	c.wantError(address, 429, "RateLimitExceeded", "Rate Limit Exceeded")
	refused := c.get(address)
	if _, err := strconv.Atoi(refused.header.Get("Retry-After")); err != nil || refused.header.Get("RateLimit-Reset") == "" {
		t.Errorf("429 has headers %v", refused.header)
	}
	if got := c.get(xrpc(r.Host, getRepo, "did", r.DID.String())); got.status != http.StatusOK || got.header.Get("RateLimit-Limit") != "6" {
		t.Errorf("getRepo has no bucket of its own: %d %v", got.status, got.header)
	}
	if got := c.get(xrpc(w.Repos()[1].Host, listRepos)); got.status != http.StatusOK {
		t.Errorf("another host: %d", got.status)
	}
}

func TestDescribeRepo(t *testing.T) {
	t.Parallel()
	w := sandboxtest.Start(t, sandbox.Config{Seed: 26, Hosts: 1, Repos: 5})
	c := newClient(t)
	for _, r := range w.Repos() {
		var got struct {
			DID, Handle     string
			DIDDoc          json.RawMessage
			Collections     []syntax.NSID
			HandleIsCorrect bool
		}
		c.into(&got, xrpc(r.Host, describeRepo, "repo", r.DID.String()))
		want := map[syntax.NSID]bool{}
		for _, record := range w.TruthOf(r.DID) {
			want[record.Collection] = true
		}
		if got.DID != r.DID.String() || got.Handle != r.Handle || !got.HandleIsCorrect || len(got.Collections) != len(want) {
			t.Errorf("describeRepo: %+v, want %+v with %v", got, r, want)
		}
		if doc := c.get(w.PLCURL() + "/" + r.DID.String()); string(doc.body) != string(got.DIDDoc) {
			t.Errorf("the document differs: %s\n%s", doc.body, got.DIDDoc)
		}
	}
}
