package store_test

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/record"
	"appview/store"
	"appview/store/admin"
	"appview/store/index"
	"appview/store/jobs"
)

// picture is everything that can be read of a store, one fact a line, in the order
// in which it is read where that matters.
type picture []string

func (p *picture) add(format string, args ...any) { *p = append(*p, fmt.Sprintf(format, args...)) }

// fact is a row as it is stored.
func fact(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// differ fails with the first lines in which two pictures differ.
func (p picture) differ(tb testing.TB, want picture) {
	tb.Helper()
	shown := 0
	for i := range max(len(p), len(want)) {
		got, wanted := "(nothing)", "(nothing)"
		if i < len(p) {
			got = p[i]
		}
		if i < len(want) {
			wanted = want[i]
		}
		if got == wanted {
			continue
		}
		tb.Errorf("the store says\n\t%s\nthe model\n\t%s", got, wanted)
		if shown++; shown == 5 {
			return
		}
	}
}

func recordLine(r index.Record) string {
	return fmt.Sprintf("%s rev %s at %s seq %d from %s cid %s %q", r.URI(), r.Rev, r.IndexedAt, r.Seq, r.Provenance(), r.Body.CID, r.Body.Data)
}

// serves are the records of active repos, of one collection or of all.
func (m *model) serves(only syntax.NSID) (list []index.Record) {
	for _, c := range m.collections() {
		for _, r := range m.repos {
			if r.account != index.AccountActive || (only != "" && only != c) || r.held[c] == nil {
				continue
			}
			for _, rkey := range sorted(r.held[c].records) {
				list = append(list, r.held[c].records[rkey])
			}
		}
	}
	return list
}

// picture is what a store is to look like.
func (m *model) picture() (p picture) {
	m.picturesRecords(&p)
	for _, r := range m.repos {
		row := index.Repo{
			DID: r.did, Host: r.host, Account: r.account, NotFoundAt: r.notFoundAt, Floor: r.floor,
			Collections: map[syntax.NSID]index.Held{},
		}
		for c, h := range r.held {
			row.Collections[c] = index.Held{Floor: h.floor, Count: int64(len(h.records)), Exact: h.exactness()}
		}
		row.Bytes = m.size(r)
		p.add("repo %s", fact(row))
		var kept []syntax.NSID
		for _, c := range m.collections() {
			if m.keeps(r, c, r.host, r.floor) {
				kept = append(kept, c)
			}
		}
		p.add("kept %v", kept)
	}
	for _, c := range m.collections() {
		for _, d := range m.deletions[c] {
			p.add("deletion in %s: %s", c, fact(d))
		}
	}
	for _, e := range sorted(m.denied) {
		p.add("denied %s: %s", e, m.denied[e])
	}
	p.add("tracked %v", sorted(m.tracked))
	for _, secret := range sorted(m.keys) {
		p.add("key %s", fact(m.keys[secret]))
	}
	for _, host := range sorted(m.distrusted) {
		p.add("distrusted %s", host)
	}
	for _, c := range modelCollections {
		p.add("freshness of %s %s", c, fact(m.freshness(c)))
	}
	for _, e := range slices.Backward(m.events) {
		p.add("event %s", fact(e))
	}
	for _, j := range m.jobs {
		if !j.Status.Final() {
			p.add("unfinished %s", j.ID)
		}
	}
	for _, j := range slices.Backward(m.jobs) {
		if !j.gone {
			m.pictureJob(j, &p)
		}
	}
	return p
}

func (m *model) picturesRecords(p *picture) {
	for _, r := range m.serves("") {
		p.add("export %s", recordLine(r))
	}
	for _, c := range m.collections() {
		list := m.serves(c)
		repos := map[syntax.DID]bool{}
		for _, r := range list {
			repos[r.DID] = true
		}
		if len(list) > 0 {
			p.add("count of %s: %+v", c, index.Count{Records: int64(len(list)), Repos: int64(len(repos))})
		}
		slices.SortFunc(list, func(a, b index.Record) int { return cmp.Compare(b.Seq, a.Seq) })
		for _, r := range list {
			p.add("newest %s", recordLine(r))
		}
		slices.SortFunc(list, func(a, b index.Record) int {
			return cmp.Or(cmp.Compare(b.RKey, a.RKey), cmp.Compare(m.repo(b.DID).number, m.repo(a.DID).number))
		})
		for _, r := range list {
			p.add("by key %s", recordLine(r))
		}
		for _, r := range m.repos {
			if r.held[c] == nil {
				continue
			}
			keys := sorted(r.held[c].records)
			slices.Reverse(keys)
			for _, rkey := range keys {
				p.add("of repo %s", recordLine(r.held[c].records[rkey]))
			}
		}
	}
	p.add("%d repos, seq %d", len(m.repos), m.seq)
}

func (m *model) pictureJob(j *modelJob, p *picture) {
	p.add("job %s", fact(j.Job))
	if j.forgot {
		p.add("forgotten")
		return
	}
	for _, did := range sorted(j.work) {
		w := j.work[did]
		row := jobs.JobRepo{
			DID: did, Host: w.Host, State: w.State, Class: w.Class, Reason: w.Reason, Detail: w.Detail,
			Attempts: w.Attempts, Records: w.Tally.Records, Rejected: w.Tally.Rejected, Rev: w.Rev, Assumed: w.Assumed,
		}
		if w.State != jobs.RepoSettled {
			row.Reason, row.Detail, row.Attempts, row.NextAttempt = w.owed.Reason, w.owed.Detail, w.owed.Attempts, w.owed.NotBefore
		}
		p.add("job repo %s", fact(row))
	}
	owing := map[string]bool{"": true}
	for _, host := range sorted(j.hosts) {
		p.add("job host %s %s", host, fact(j.host(host)))
	}
	for _, w := range j.work {
		if w.State != jobs.RepoSettled {
			owing[w.owed.Host] = true
		}
	}
	for _, host := range sorted(owing) {
		p.add("queue of %q", host)
		for _, did := range sorted(j.work) {
			if w := j.work[did]; w.State != jobs.RepoSettled && w.owed.Host == host {
				p.add("owed %s %s", did, fact(w.owed))
			}
		}
	}
	for _, name := range listings {
		p.add("listing %q %s", name, fact(j.cursors[name]))
	}
	p.add("doubted %v", m.doubted(j))
}

// look takes the picture of a store, reading in pages of a size.
func look(tb testing.TB, s *store.Store, collections []syntax.NSID, page int) (p picture) {
	tb.Helper()
	must := func(err error) {
		tb.Helper()
		if err != nil {
			tb.Fatalf("take the picture of the store: %v", err)
		}
	}
	ctx := tb.Context()
	var begun uint64
	must(s.Index.Export(ctx, index.Filter{}, func(seq uint64) error { begun = seq; return nil }, func(r *index.Record) error {
		p.add("export %s", recordLine(*r))
		return nil
	}))
	st, err := s.Stats(ctx)
	must(err)
	jobs, err := s.Jobs.List(ctx)
	must(err)
	for _, c := range collections {
		if n, ok := st.Collections[c]; ok {
			p.add("count of %s: %+v", c, n)
		}
		for below, more := uint64(0), true; more; more = below > 0 {
			var list []index.Record
			list, below, err = newest(ctx, s, c, below, page)
			must(err)
			for _, r := range list {
				p.add("newest %s", recordLine(r))
			}
		}
		for below, more := (*index.KeyPlace)(nil), true; more; more = below != nil {
			var list []index.Record
			list, below, err = byKey(ctx, s, c, below, page)
			must(err)
			for _, r := range list {
				p.add("by key %s", recordLine(r))
			}
		}
		lookAtRepos(tb, s, c, page, &p)
	}
	p.add("%d repos, seq %d", st.Repos, begun)
	if st.Seq != begun {
		p.add("an export contains change %d, the store %d", begun, st.Seq)
	}
	lookAtRest(tb, s, collections, page, &p)
	for _, j := range jobs {
		lookAtJob(tb, s, j, page, &p)
	}
	return p
}

// lookAtRepos reads every repo in both directions: the descending one is the
// picture, the ascending one has to be its mirror.
func lookAtRepos(tb testing.TB, s *store.Store, c syntax.NSID, page int, p *picture) {
	tb.Helper()
	for _, did := range numbered(tb, s) {
		var down, up []string
		for _, ascending := range []bool{false, true} {
			at := index.RepoPage{DID: did, Collection: c, Ascending: ascending, Limit: page}
			for {
				list, err := repoRecords(tb.Context(), s, at)
				if err != nil {
					tb.Fatal(err)
				}
				for _, r := range list {
					if at.After = r.RKey; ascending {
						up = append(up, recordLine(r))
					} else {
						down = append(down, recordLine(r))
					}
				}
				if len(list) < page {
					break
				}
			}
		}
		for _, line := range down {
			p.add("of repo %s", line)
		}
		if slices.Reverse(up); !slices.Equal(up, down) {
			p.add("ascending it is %s", strings.Join(up, "; "))
		}
	}
}

// numbered are the repos that have a number, in the order of these.
func numbered(tb testing.TB, s *store.Store) []syntax.DID {
	tb.Helper()
	dids, err := s.Numbered(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	return dids
}

func lookAtRest(tb testing.TB, s *store.Store, collections []syntax.NSID, page int, p *picture) {
	tb.Helper()
	must := func(err error) {
		tb.Helper()
		if err != nil {
			tb.Fatal(err)
		}
	}
	ctx := tb.Context()
	for _, did := range numbered(tb, s) {
		repo, err := s.Index.Repo(ctx, did)
		must(err)
		p.add("repo %s", fact(repo))
		kept, err := s.Work.Kept(ctx, repo.Host, did, repo.Floor)
		must(err)
		p.add("kept %v", kept)
		for _, c := range collections {
			list, account, _, err := servedPage(ctx, s, index.RepoPage{DID: did, Collection: c, Limit: 1})
			must(err)
			if account != repo.Account || (len(list) > 0) != (repo.Active() && repo.Collections[c].Count > 0) {
				p.add("%d records of %s are served while its account is %s", len(list), did, account)
			}
			for _, r := range list {
				if one, _, err := s.Index.ServedRecord(ctx, record.URI{DID: did, Collection: c, RKey: r.RKey}); err != nil || recordLine(one) != recordLine(r) {
					p.add("the record alone is %s, %v", recordLine(one), err)
				}
			}
		}
	}
	for _, c := range collections {
		list, err := s.Deletions(ctx, c)
		must(err)
		for _, d := range list {
			p.add("deletion in %s: %s", c, fact(d))
		}
	}
	denials, err := s.Index.Denials(ctx)
	must(err)
	for _, d := range denials {
		p.add("denied %s: %s", d.Entry, d.Reason)
	}
	tracked, err := s.Collections.Tracked(ctx)
	must(err)
	p.add("tracked %v", tracked)
	for _, secret := range modelSecrets {
		key, err := s.Admin.APIKey(ctx, secret)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		must(err)
		p.add("key %s", fact(key))
	}
	for _, host := range slices.Sorted(slices.Values(modelHosts)) {
		known, err := s.Work.Distrusted(ctx, host)
		must(err)
		if known {
			p.add("distrusted %s", host)
		}
	}
	for _, c := range modelCollections {
		f, err := s.Collections.Freshness(ctx, c)
		must(err)
		p.add("freshness of %s %s", c, fact(f))
	}
	for below, more := uint64(0), true; more; more = below > 0 {
		var list []admin.Event
		list, below, err = s.Admin.Events(ctx, below, page)
		must(err)
		for _, e := range list {
			p.add("event %s", fact(e))
		}
	}
	unfinished, err := s.Jobs.Unfinished(ctx)
	must(err)
	for _, j := range unfinished {
		p.add("unfinished %s", j.ID)
	}
}

func lookAtJob(tb testing.TB, s *store.Store, j jobs.Job, page int, p *picture) {
	tb.Helper()
	must := func(err error) {
		tb.Helper()
		if err != nil {
			tb.Fatal(err)
		}
	}
	ctx := tb.Context()
	p.add("job %s", fact(j))
	for after, more := syntax.DID(""), true; more; more = after != "" {
		list, next, err := s.Jobs.JobRepos(ctx, j.Seq, after, page, nil)
		if errors.Is(err, store.ErrNotFound) {
			p.add("forgotten")
			return
		}
		must(err)
		for _, r := range list {
			p.add("job repo %s", fact(r))
		}
		after = next
	}
	hosts, err := s.Jobs.JobHosts(ctx, j.Seq)
	must(err)
	slices.SortFunc(hosts, func(a, b jobs.JobHost) int { return cmp.Compare(a.Host, b.Host) })
	for _, h := range hosts {
		p.add("job host %s %s", h.Host, fact(h.HostWork))
	}
	owing, err := s.Work.OwedHosts(ctx, j.Seq)
	must(err)
	for _, host := range append([]string{""}, owing...) {
		p.add("queue of %q", host)
		for after := syntax.DID(""); ; {
			list, err := s.Work.Owed(ctx, j.Seq, host, after, page)
			must(err)
			for _, o := range list {
				p.add("owed %s %s", o.DID, fact(o))
				after = o.DID
			}
			if len(list) < page {
				break
			}
		}
	}
	for _, name := range listings {
		c, err := s.Work.Listing(ctx, j.Seq, name)
		must(err)
		p.add("listing %q %s", name, fact(c))
	}
	doubted, err := s.Work.Doubted(ctx, j.Seq)
	must(err)
	p.add("doubted %v", doubted)
}
