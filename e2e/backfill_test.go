//go:build e2e

package e2e

import (
	"errors"
	"maps"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"
)

// run is one network with the program over it.
type run struct {
	net   *network
	index *index
	cast  *cast
	truth map[string]listed // as the PDSes showed it last
}

// TestBackfillEqualsThePDSes follows one index through the life of a network:
// filled, filled again without a change, and again after everything that can
// happen to an account.
func TestBackfillEqualsThePDSes(t *testing.T) {
	t.Parallel()
	r := &run{net: startNetwork(t)}
	var err error
	if r.cast, err = r.net.seed(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.look(t, "seeded")
	r.requireRichNetwork(t)

	r.index = startIndex(t, r.net.relay, r.net.plc)
	r.backfillOneRepo(t, r.cast.odd.did)
	r.backfill(t)
	r.compareXRPC(t, r.cast.largeRepo, r.cast.odd, r.cast.changing)
	r.askAll(t)
	r.requireClientNotices(t)
	r.repeat(t)
	refused := []clientRefused{
		r.refusal(t, r.cast.deactivated, "RepoDeactivated"),
		r.refusal(t, r.cast.takenDown, "RepoTakendown"),
	}

	if err := r.net.change(t.Context(), r.cast); err != nil {
		t.Fatal(err)
	}
	r.look(t, "changed")
	r.requireChanged(t)
	r.backfill(t)
	r.compareXRPC(t, r.cast.changing, r.cast.moving, r.cast.silent)
	r.requireRefused(t, r.cast.deactivated, "RepoDeactivated")
	r.requireRefused(t, r.cast.takenDown, "RepoTakendown")
	r.requireRefused(t, r.cast.deleted, "RepoNotFound")
	r.requireRefused(t, r.cast.tombstoned, "RepoNotFound")
	r.askRefused(t, refused...)
	r.repeat(t)

	if err := r.net.changeBack(t.Context(), r.cast); err != nil {
		t.Fatal(err)
	}
	r.look(t, "changed back")
	r.requireKept(t, r.cast.deactivated)
	r.backfill(t)
	r.compareXRPC(t, r.cast.deactivated, r.cast.takenDown, r.cast.emptied)

	if err := r.index.process.stop(); err != nil || r.index.process.err != nil {
		t.Errorf("end of the program: %v, exit: %v", err, r.index.process.err)
	}
}

// look reads the truth anew and waits until the collection directory has all of it.
func (r *run) look(t *testing.T, when string) {
	t.Helper()
	var err error
	if r.truth, err = r.net.truth(t.Context()); err != nil {
		t.Fatalf("%s: read the PDSes: %v", when, err)
	}
	if err := r.net.waitListed(t.Context(), r.truth, statuses, notes, posts); err != nil {
		t.Fatalf("%s: the collection directory does not list every repo: %v", when, err)
	}
	t.Logf("%s: the PDSes hold %d records: %d statuses, %d notes, %d posts", when, len(r.truth),
		len(r.of("", statuses)), len(r.of("", notes)), len(r.of("", posts)))
}

// of is the part of the truth that belongs to a DID, a collection or both.
func (r *run) of(did, collection string) map[string]listed {
	part := maps.Clone(r.truth)
	maps.DeleteFunc(part, func(uri string, _ listed) bool {
		d, c := splitURI(uri)
		return did != "" && d != did || collection != "" && c != collection
	})
	return part
}

// requireRichNetwork makes sure that a comparison means something.
func (r *run) requireRichNetwork(t *testing.T) {
	t.Helper()
	if n := len(r.of(r.cast.largeRepo.did, statuses)); n != largeRepoRecords {
		t.Fatalf("the large repo has %d statuses, want %d", n, largeRepoRecords)
	}
	if n := len(r.of(r.cast.odd.did, notes)); n != 8 {
		t.Fatalf("the odd repo has %d notes, want 8", n)
	}
	if n := len(r.of(r.cast.silent.did, "")); n != 0 {
		t.Fatalf("the silent repo has %d records", n)
	}
	var onlyStatuses, onlyNotes int
	for _, a := range r.cast.crowd {
		s, n := len(r.of(a.did, statuses)), len(r.of(a.did, notes))
		if s > 0 && n == 0 {
			onlyStatuses++
		}
		if n > 0 && s == 0 {
			onlyNotes++
		}
	}
	if onlyStatuses == 0 || onlyNotes == 0 {
		t.Fatalf("%d repos have only statuses and %d only notes, want some of both", onlyStatuses, onlyNotes)
	}
}

// requireChanged makes sure that everything meant to happen has happened.
func (r *run) requireChanged(t *testing.T) {
	t.Helper()
	c := r.cast
	want := map[*account]int{
		c.changing: 8, c.silent: 1, c.moving: 151,
		c.emptied: 0, c.deactivated: 0, c.takenDown: 0, c.deleted: 0, c.tombstoned: 0,
	}
	for a, n := range want {
		if got := len(r.of(a.did, statuses)); got != n {
			t.Fatalf("%s shows %d statuses after the changes, want %d", a.name, got, n)
		}
	}
	for a, status := range map[*account]string{c.deactivated: "deactivated", c.takenDown: "takendown"} {
		var out struct {
			Active bool   `json:"active"`
			Status string `json:"status"`
		}
		err := a.pds.get(t.Context(), "/xrpc/com.atproto.sync.getRepoStatus", url.Values{"did": {a.did}}, "", &out)
		if err != nil || out.Active || out.Status != status {
			t.Fatalf("%s: active %t, status %q, error %v; want %q", a.name, out.Active, out.Status, err, status)
		}
	}
	if home, err := r.net.home(t.Context(), c.moving.did); err != nil || home != string(r.net.pdses[1].endpoint) {
		t.Fatalf("%s lives at %s, error %v", c.moving.name, home, err)
	}
	if home, err := r.net.home(t.Context(), c.tombstoned.did); err != nil || home != "" {
		t.Fatalf("%s lives at %s, error %v", c.tombstoned.name, home, err)
	}
}

// backfillOneRepo reads everything of one repo into the empty index.
func (r *run) backfillOneRepo(t *testing.T, did string) {
	t.Helper()
	want := r.of(did, "")
	j := r.job(t, map[string]any{"did": did})
	if *j.TotalRepos != 1 || *j.TotalRecords != int64(len(want)) {
		t.Errorf("job for one repo of %d records: %s", len(want), compact(j))
	}
	r.requireExport(t, url.Values{"did": {did}}, want)
	r.requireExport(t, url.Values{}, want)
}

// backfill reads each collection, all at once, and compares.
func (r *run) backfill(t *testing.T) {
	t.Helper()
	ids := map[string]string{}
	for _, c := range []string{statuses, notes, posts} {
		id, err := r.index.create(t.Context(), map[string]any{"collection": c})
		if err != nil {
			t.Fatal(err)
		}
		ids[c] = id
	}
	for c, id := range ids {
		j, err := r.index.completed(t.Context(), id)
		if err != nil {
			t.Fatalf("backfill of %s: %v", c, err)
		}
		r.requireCounters(t, j, c)
		r.requireExport(t, url.Values{"collection": {c}}, r.of("", c))
	}
}

// requireKept has a job read an account that has come back and not changed: its PDS is
// asked for its rev, and for no record.
func (r *run) requireKept(t *testing.T, a *account) {
	t.Helper()
	before := r.index.requestsToPDSes(t)
	j := r.job(t, map[string]any{"did": a.did, "collection": statuses})
	if asked := r.index.requestsToPDSes(t) - before; asked != 1 {
		t.Errorf("the PDS of an account that has come back as it was is asked %g times, want once", asked)
	}
	want := r.of(a.did, statuses)
	if len(want) == 0 || *j.TotalRecords != int64(len(want)) {
		t.Errorf("want %d records, the job says %s", len(want), compact(j))
	}
	r.requireExport(t, url.Values{"did": {a.did}, "collection": {statuses}}, want)
}

// repeat reads a collection that has not changed: the same totals, and not one
// byte of the export different.
func (r *run) repeat(t *testing.T) {
	t.Helper()
	before := r.export(t, url.Values{})
	j := r.job(t, map[string]any{"collection": statuses})
	r.requireCounters(t, j, statuses)
	after := r.export(t, url.Values{})
	for uri, l := range after {
		if l.raw != before[uri].raw {
			t.Errorf("a job over unchanged data changed\n%sto\n%s", before[uri].raw, l.raw)
		}
	}
	if len(after) != len(before) {
		t.Errorf("a job over unchanged data changed %d records to %d", len(before), len(after))
	}
}

// requireCounters compares a completed job with what the directory lists.
func (r *run) requireCounters(t *testing.T, j job, collection string) {
	t.Helper()
	dids, err := r.net.listing(t.Context(), collection)
	if err != nil {
		t.Fatal(err)
	}
	records := len(r.of("", collection))
	if *j.TotalRepos != int64(len(dids)) || *j.TotalRecords != int64(records) {
		t.Errorf("%s: want %d repos and %d records, the job says %s", collection, len(dids), records, compact(j))
	}
}

func (r *run) job(t *testing.T, request map[string]any) job {
	t.Helper()
	id, err := r.index.create(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	j, err := r.index.completed(t.Context(), id)
	if err != nil {
		t.Fatalf("backfill of %v: %v", request, err)
	}
	return j
}

func (r *run) export(t *testing.T, q url.Values) map[string]line {
	t.Helper()
	lines, err := r.index.export(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

func (r *run) requireExport(t *testing.T, q url.Values, want map[string]listed) {
	t.Helper()
	if err := compare(want, r.export(t, q)); err != nil {
		t.Errorf("export %s: %v", q.Encode(), err)
	}
}

// compareXRPC asks the index what it asked the PDS: the same records in the
// same order, and each of them alone.
func (r *run) compareXRPC(t *testing.T, accounts ...*account) {
	t.Helper()
	for _, a := range accounts {
		for _, c := range []string{statuses, notes, posts} {
			want, err := a.pds.records(t.Context(), a.did, c)
			if err != nil {
				t.Fatal(err)
			}
			got, err := r.index.records(t.Context(), a.did, c)
			if err != nil {
				t.Errorf("listRecords of %s from the index: %v", a.name, err)
				continue
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("listRecords of %s, %s: index has %d records, PDS has %d, and they differ", a.name, c, len(got), len(want))
			}
			for _, w := range want[:min(len(want), 3)] {
				r.compareRecord(t, a, w)
			}
		}
	}
}

func (r *run) compareRecord(t *testing.T, a *account, want listed) {
	t.Helper()
	did, collection := splitURI(want.URI)
	q := url.Values{"repo": {did}, "collection": {collection}, "rkey": {want.URI[strings.LastIndex(want.URI, "/")+1:]}}
	var got listed
	if err := r.index.get(t.Context(), "/xrpc/com.atproto.repo.getRecord", q, "", &got); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("getRecord of %s: index says %s, error %v; want %s", a.name, compact(got), err, compact(want))
	}
}

// requireRefused checks that the records of an account are served nowhere.
func (r *run) requireRefused(t *testing.T, a *account, name string) {
	t.Helper()
	_, err := r.index.records(t.Context(), a.did, statuses)
	if failed, ok := errors.AsType[*statusError](err); !ok || failed.Status != http.StatusBadRequest || failed.Name != name {
		t.Errorf("listRecords of %s: %v, want %s", a.name, err, name)
	}
	if left := r.export(t, url.Values{"did": {a.did}}); len(left) > 0 {
		t.Errorf("the export still has %d records of %s", len(left), a.name)
	}
}
