package read

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"

	"appview/internal/network"
	"appview/internal/network/outcome"
	"appview/internal/network/polite"
	"appview/internal/record"
	"appview/store"
	"appview/store/index"
	"appview/store/jobs"
)

const (
	ownHost = network.Host("https://pds.example")
	repoDID = syntax.DID("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa")
)

// host is one that has a repo of a single record in each collection, and does not give it
// in one piece.
type host struct {
	revs    []syntax.TID // of one probe after the other; the last stays
	cursors []string     // of one page after the other; then none
	probes  int
	pages   int
}

func (h *host) RepoStatus(context.Context, network.Host, syntax.DID) (network.RepoStatus, error) {
	rev := h.revs[min(h.probes, len(h.revs)-1)]
	h.probes++
	return network.RepoStatus{Active: true, Rev: rev}, nil
}

func (h *host) DescribeRepo(context.Context, network.Host, syntax.DID) (network.Description, error) {
	return network.Description{}, errors.New("nobody asks for this")
}

func (h *host) ListRecords(_ context.Context, _ network.Host, did syntax.DID, c syntax.NSID, cursor string) (network.RecordsPage, error) {
	block := fmt.Sprintf("\xa1\x65$type%c%s", 0x60+len(c), c) // {"$type": c} in CBOR
	id, err := cid.V1Builder{Codec: cid.DagCBOR, MhType: multihash.SHA2_256}.Sum([]byte(block))
	if err != nil {
		return network.RecordsPage{}, err
	}
	page := network.RecordsPage{Limit: 100, Records: []network.Listed{
		{URI: record.URI{DID: did, Collection: c, RKey: syntax.RecordKey("a" + cursor)}.String(), CID: id.String(), Value: fmt.Appendf(nil, `{"$type":%q}`, c)},
	}}
	if h.pages < len(h.cursors) {
		page.Cursor = h.cursors[h.pages]
	}
	h.pages++
	return page, nil
}

func (h *host) Repo(context.Context, network.Host, network.Identity) (*network.Repo, error) {
	return nil, &network.Error{Op: "getRepo", Host: ownHost, Reason: outcome.ReasonHTTP5xx, Status: 501}
}

func (h *host) ParkedUntil(network.Host) (time.Time, bool)     { return time.Time{}, false }
func (h *host) RepoParkedUntil(network.Host) (time.Time, bool) { return time.Time{}, false }
func (h *host) HostState(network.Host) polite.HostState        { return polite.HostState{} }

// emptyStore is a store that holds nothing.
type emptyStore struct{ Steps }

func (emptyStore) Repo(context.Context, syntax.DID) (index.Repo, error) {
	return index.Repo{}, store.ErrNotFound
}

func (emptyStore) Record(context.Context, record.URI) (index.Record, error) {
	return index.Record{}, store.ErrNotFound
}

func (emptyStore) Kept(context.Context, string, syntax.DID, syntax.TID) ([]syntax.NSID, error) {
	return nil, nil
}

func (emptyStore) Unlisted(context.Context, uint64, syntax.DID, index.Segment, int) ([]syntax.RecordKey, error) {
	return nil, nil
}

func (emptyStore) MayEnd(context.Context, uint64, string, syntax.DID, index.Segment) (bool, error) {
	return false, nil
}

func (emptyStore) Distrusted(context.Context, string) (bool, error) { return false, nil }

func (emptyStore) Host(context.Context, uint64, string) (jobs.HostWork, error) {
	return jobs.HostWork{}, nil
}

// TestReadingIsAsSureAsItMayBe reads a repo from hosts that change it or not, and compares
// what is said of it.
func TestReadingIsAsSureAsItMayBe(t *testing.T) {
	t.Parallel()
	one, two := []syntax.NSID{"com.example.a"}, []syntax.NSID{"com.example.a", "com.example.b"}
	for name, c := range map[string]struct {
		targets []syntax.NSID
		host    host
		probes  int
		exact   bool
		reason  outcome.Reason // of the verdict; empty: the store comes to it
	}{
		"one page":                         {one, host{revs: []syntax.TID{"3kaaaaaaaaa22", "3kbbbbbbbbb22"}}, 1, true, ""},
		"a page for each collection":       {two, host{revs: []syntax.TID{"3kaaaaaaaaa22"}}, 2, true, ""},
		"a change between the collections": {two, host{revs: []syntax.TID{"3kaaaaaaaaa22", "3kbbbbbbbbb22"}}, 3, true, ""},
		"a change in every pass":           {two, host{revs: []syntax.TID{"3kaaaaaaaaa22", "3kbbbbbbbbb22", "3kccccccccc22", "3kddddddddd22"}}, 4, false, ""},
		"a listing without an end":         {one, host{revs: []syntax.TID{"3kaaaaaaaaa22"}, cursors: []string{"x", "x", "x", "x", "x", "x"}}, 4, false, outcome.ReasonIncomplete},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rd := reader()
			rd.cfg.Targets = c.targets
			rd.cfg.Network = Network{Repos: &c.host, Limits: &c.host, Lookup: func(context.Context, syntax.DID) (network.Identity, error) {
				return network.Identity{DID: repoDID, PDS: ownHost}, nil
			}}
			rd.cfg.Store = Store{Index: emptyStore{}, Listings: emptyStore{}, Ends: emptyStore{}}
			got := rd.Read(t.Context(), jobs.Owed{DID: repoDID, Host: string(ownHost)})
			if got.Err != nil {
				t.Fatal(got.Err)
			}
			verdict := got.Settlement.Verdict
			if got.Settlement.Exact != c.exact || verdict.Reason != string(c.reason) || c.host.probes != c.probes {
				t.Errorf("exact %t, %q after %d probes, want %t, %q after %d", got.Settlement.Exact, verdict.Reason, c.host.probes, c.exact, c.reason, c.probes)
			}
			if rd.cfg.Buffered.Load() == 0 {
				t.Error("nothing is counted as buffered before the settlement is committed")
			}
			got.Release()
			if n := rd.cfg.Buffered.Load(); n != 0 {
				t.Errorf("%d bytes stay buffered", n)
			}
		})
	}
}

// TestReasonsAreThoseOfTheStore compares the reasons that the store comes to itself with
// the closed list.
func TestReasonsAreThoseOfTheStore(t *testing.T) {
	t.Parallel()
	for of, want := range map[string]outcome.Reason{
		jobs.ReasonExact: outcome.ReasonExact, jobs.ReasonChangedDuringRead: outcome.ReasonChangedDuringRead,
		jobs.ReasonEmpty: outcome.ReasonEmpty, jobs.ReasonRejected: outcome.ReasonRejected, jobs.ReasonTooLarge: outcome.ReasonTooLarge,
	} {
		if of != string(want) {
			t.Errorf("the store says %q, want %q", of, want)
		}
	}
}
