package sandbox_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/identity"
	"github.com/bluesky-social/indigo/atproto/repo"
	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"

	"appview/internal/sandbox"
	"appview/internal/sandbox/sandboxtest"
)

// readCAR reads a repo with indigo's client code and believes nothing: tree,
// signature by the key in the DID document, every record block.
func readCAR(tb testing.TB, w *sandbox.World, c *client, did syntax.DID) (*repo.Commit, map[string]string) {
	tb.Helper()
	dir := identity.BaseDirectory{PLCURL: w.PLCURL(), HTTPClient: *c.http, SkipHandleVerification: true}
	ident, err := dir.LookupDID(tb.Context(), did)
	if err != nil {
		tb.Fatalf("look up %s: %v", did, err)
	}
	if want := account(tb, w, did).Host; ident.PDSEndpoint() != want {
		tb.Fatalf("%s is at %s, want %s", did, ident.PDSEndpoint(), want)
	}
	r := c.get(xrpc(ident.PDSEndpoint(), getRepo, "did", did.String()))
	if r.status != http.StatusOK || r.header.Get("Content-Type") != "application/vnd.ipld.car" {
		tb.Fatalf("getRepo %s: %d %s", did, r.status, r.header)
	}
	commit, loaded, err := repo.LoadRepoFromCAR(tb.Context(), bytes.NewReader(r.body))
	if err != nil {
		tb.Fatalf("load %s: %v", did, err)
	}
	key, err := ident.PublicKey()
	if err != nil {
		tb.Fatalf("key of %s: %v", did, err)
	}
	if err := commit.VerifySignature(key); err != nil {
		tb.Fatalf("signature of %s: %v", did, err)
	}
	if err := loaded.MST.Verify(); err != nil {
		tb.Fatalf("tree of %s: %v", did, err)
	}
	if commit.DID != did.String() || loaded.MST.IsPartial() {
		tb.Fatalf("CAR of %s is of %s, partial: %t", did, commit.DID, loaded.MST.IsPartial())
	}
	records := map[string]string{}
	err = loaded.MST.Walk(func(key []byte, value cid.Cid) error {
		collection, rkey, _ := strings.Cut(string(key), "/")
		block, got, err := loaded.GetRecordBytes(tb.Context(), syntax.NSID(collection), syntax.RecordKey(rkey))
		if err != nil {
			return err
		}
		if sum, err := value.Prefix().Sum(block); err != nil || !sum.Equals(*got) {
			tb.Errorf("%s of %s is not its block's CID: %v", value, key, err)
		}
		records["at://"+did.String()+"/"+string(key)] = value.String()
		return nil
	})
	if err != nil {
		tb.Fatalf("walk %s: %v", did, err)
	}
	return commit, records
}

// repoRoot counts the blocks of a CAR by hand.
func repoRoot(body []byte) (root string, blocks int, err error) {
	header, n := binary.Uvarint(body)
	if n <= 0 || int(header)+n > len(body) {
		return "", 0, errors.New("no CAR header")
	}
	at := bytes.Index(body[:n+int(header)], []byte{0x58, 0x25, 0x00})
	if at < 0 {
		return "", 0, errors.New("no root")
	}
	_, c, err := cid.CidFromBytes(body[at+3 : n+int(header)])
	if err != nil {
		return "", 0, err
	}
	for body = body[n+int(header):]; len(body) > 0; blocks++ {
		size, n := binary.Uvarint(body)
		if n <= 0 || int(size)+n > len(body) {
			return "", 0, errors.New("cut block")
		}
		body = body[n+int(size):]
	}
	return c.String(), blocks, nil
}

func TestCARsAreRealSignedRepos(t *testing.T) {
	t.Parallel()
	w := sandboxtest.Start(t, sandbox.Config{Seed: 11, Hosts: 3, Repos: 12, LargeRepos: 1, Odd: 0.05})
	c := newClient(t)
	empty, err := w.AddRepo("")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range w.Repos() {
		commit, records := readCAR(t, w, c, r.DID)
		if commit.Rev != r.Rev.String() {
			t.Errorf("%s: commit is at %s, want %s", r.DID, commit.Rev, r.Rev)
		}
		truth := w.TruthOf(r.DID)
		if len(records) != len(truth) || (len(truth) == 0) != (r.Records == 0) {
			t.Errorf("%s: CAR has %d records, the truth %d", r.DID, len(records), len(truth))
		}
		for uri, want := range truth {
			if records[uri] != want.CID {
				t.Errorf("%s: CAR has %q, want %s", uri, records[uri], want.CID)
			}
		}
		for uri, l := range c.readRepo(r.Host, r.DID) {
			if records[uri] != l.CID {
				t.Errorf("%s: CAR has %q, listRecords %s", uri, records[uri], l.CID)
			}
		}
	}
	if _, records := readCAR(t, w, c, empty); len(records) != 0 {
		t.Errorf("a new repo has %d records", len(records))
	}
}

func TestARevHasOneCommit(t *testing.T) {
	t.Parallel()
	w := sandboxtest.Start(t, sandbox.Config{Seed: 12, Hosts: 1, Repos: 2})
	c := newClient(t)
	var latest struct{ CID, Rev string }
	for _, r := range w.Repos() {
		for range 3 {
			r := account(t, w, r.DID)
			address := xrpc(r.Host, getLatestCommit, "did", r.DID.String())
			c.into(&latest, address)
			first := latest
			root, _, err := repoRoot(c.get(xrpc(r.Host, getRepo, "did", r.DID.String())).body)
			if err != nil {
				t.Fatal(err)
			}
			c.into(&latest, address)
			if latest != first || root != latest.CID || latest.Rev != r.Rev.String() {
				t.Errorf("%s: commit %v, then %v, CAR root %s", r.DID, first, latest, root)
			}
			_, blocks, err := repoRoot(c.get(xrpc(r.Host, getRepo, "did", r.DID.String(), "since", latest.Rev)).body)
			if err != nil || blocks != 0 {
				t.Errorf("CAR since the current rev has %d blocks: %v", blocks, err)
			}
			if _, err := w.Create(r.DID, sandbox.NoteCollection, "", map[string]any{"text": "x"}); err != nil {
				t.Fatal(err)
			}
			if now := account(t, w, r.DID).Rev; now <= r.Rev {
				t.Errorf("rev went from %s to %s", r.Rev, now)
			}
		}
	}
}
