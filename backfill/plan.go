package backfill

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/google/uuid"

	"appview/internal/api"
	"appview/internal/network"
	"appview/internal/network/polite"
	"appview/store"
	"appview/store/jobs"
)

// Bounds of what a plan asks the network for.
const (
	planTime     = 10 * time.Second // all of it
	planLookTime = 6 * time.Second  // of this, looking repos up
	planPages    = 2                // of listings, or one of each
	planListings = 4                // collections of which a page is read
	planCounted  = 100              // collections that the relay is asked to count
	planHosts    = 5                // pages of the relay's hosts
	planLookups  = 200              // repos looked up
	planWidth    = 32               // at once
)

// Plan is what a job would come to, as far as that can be told beforehand.
type Plan struct {
	Targets  []syntax.NSID // none: all that a repo has
	Repos    int64
	Hosts    int64 // that hold them
	Requests int64 // to these, to the directory and to the relay
	Time     time.Duration

	Bottleneck Load   // what takes longest; without a role if nobody is asked anything
	Loads      []Load // everybody who is asked, those that take longest first

	ReposFrom, HostsFrom, RequestsFrom api.Source

	Sampled    int       // repos from which the hosts are estimated
	EarlierJob uuid.UUID // from which something is known; Nil: none
	Ahead      int       // jobs that have to end before this one begins
}

// Exact reports whether the repos and their hosts are known, not estimated.
func (p Plan) Exact() bool { return p.ReposFrom.Exact() && p.HostsFrom.Exact() }

// Load is what a job asks of somebody.
type Load struct {
	Host     string // empty: not known which one
	Role     api.Role
	Repos    int64
	Requests int64
	Time     time.Duration // at its limits, from now on
}

// PlanError says why nothing can be told about a job beforehand: somebody whom the
// job needs too does not answer.
type PlanError struct {
	Text  string
	Until time.Time // before which it is no use to ask again; zero: not known
}

// Error says what happened and what to do.
func (e *PlanError) Error() string { return e.Text }

// Plan tells what a job would come to. It starts nothing. A request that names its
// repos is planned from what the index knows; for the others the relay is asked,
// and the directory about some of the repos, within the bounds above. It fails
// with a *PlanError where the job would fail.
func (b *Backfill) Plan(ctx context.Context, req jobs.Request) (Plan, error) {
	var err error
	targets := []syntax.NSID{req.Collection}
	if req.Collection == "" {
		if targets, err = b.cfg.Store.Collections.Tracked(ctx); err != nil {
			return Plan{}, fmt.Errorf("plan: %w", err)
		}
	}
	p := &planner{b: b, req: req, targets: targets, plan: Plan{Targets: targets}}
	if p.stats, err = b.cfg.Store.Stats(ctx); err != nil {
		return Plan{}, fmt.Errorf("plan: %w", err)
	}
	if p.plan.Ahead, err = b.ahead(ctx, req); err != nil {
		return Plan{}, fmt.Errorf("plan: %w", err)
	}
	if !req.Network() {
		err = p.named(ctx)
	} else {
		err = p.network(ctx)
	}
	if err != nil {
		return Plan{}, err
	}
	if err := p.add(ctx); err != nil {
		return Plan{}, fmt.Errorf("plan: %w", err)
	}
	return p.plan, nil
}

// ahead is how many jobs have to end before a new one begins.
func (b *Backfill) ahead(ctx context.Context, req jobs.Request) (int, error) {
	jobs, err := b.cfg.Store.Jobs.List(ctx)
	if err != nil {
		return 0, err
	}
	width := b.cfg.MaxJobs
	if !req.Network() {
		width = maxDIDJobs
	}
	busy := 0
	for _, j := range jobs {
		if !j.Status.Final() && j.Status != api.StatusPaused && j.Request.Network() == req.Network() {
			busy++
		}
	}
	return max(busy-width+1, 0), nil
}

// planner makes one plan.
type planner struct {
	b       *Backfill
	req     jobs.Request
	targets []syntax.NSID
	stats   jobs.Stats
	listed  map[syntax.NSID]int64 // about how many repos have each target
	dids    []syntax.DID          // that a listing has named
	share   map[string]float64    // of the repos, by host: less than 1 together if some have none
	cheap   map[string]bool       // hosts that are given up after a few requests
	plan    Plan
}

// named plans a job over repos that the request names: nobody has to be asked.
func (p *planner) named(ctx context.Context) error {
	dids := p.req.Named()
	p.plan.Repos, p.plan.ReposFrom, p.plan.HostsFrom = int64(len(dids)), api.SourceNamed, api.SourceLookup
	p.share = map[string]float64{}
	for _, did := range dids {
		host, err := p.known(ctx, did)
		if err != nil {
			return err
		}
		if host == unknownHost {
			p.plan.HostsFrom = api.SourceAssumed // then it takes longest
		}
		p.share[host] += 1 / float64(len(dids))
	}
	p.plan.Hosts = int64(len(p.share))
	return nil
}

// known is the host where the index has found a repo, empty if it has not.
func (p *planner) known(ctx context.Context, did syntax.DID) (string, error) {
	repo, err := p.b.cfg.Store.Index.Repo(ctx, did)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return "", fmt.Errorf("plan: %w", err)
	}
	return repo.Host, nil
}

// network plans a job over the network.
func (p *planner) network(ctx context.Context) error {
	own, cancel := context.WithTimeout(ctx, planTime)
	defer cancel()
	earlier, hosts, err := p.earlier(ctx)
	if err != nil {
		return err
	}
	complete, err := p.list(own)
	if err != nil {
		return p.unreachable(ctx, p.b.cfg.Network.Relay(), "the relay", "--relay", err)
	}
	spread := !complete && len(hosts) == 0 && p.hostsOfRelay(own)
	switch {
	case complete:
		p.plan.Repos, p.plan.ReposFrom = int64(len(p.dids)), api.SourceListing
	case spread:
	case p.count(own):
		p.plan.ReposFrom = api.SourceRelay
	case earlier.TotalRepos > int64(len(p.dids)):
		p.plan.Repos, p.plan.ReposFrom, p.plan.EarlierJob = earlier.TotalRepos, api.SourceJob, earlier.ID
	default:
		p.plan.Repos, p.plan.ReposFrom = int64(len(p.dids)), api.SourceAtLeast
	}
	switch {
	case spread:
	case len(hosts) > 0 && (!complete || len(p.dids) > planLookups):
		p.fromJob(earlier, hosts)
	default:
		return p.sample(ctx, own, complete)
	}
	return nil
}

// list reads the beginning of the job's listings, and reports whether that was all
// of them.
func (p *planner) list(ctx context.Context) (complete bool, err error) {
	net := p.b.cfg.Network
	pages := []func(context.Context, string) (network.ReposPage, error){net.Repos}
	if len(p.targets) > 0 {
		pages = pages[:0]
		for _, c := range p.targets[:min(len(p.targets), planListings)] {
			pages = append(pages, func(ctx context.Context, cursor string) (network.ReposPage, error) {
				return net.ReposByCollection(ctx, c, cursor)
			})
		}
	}
	p.listed = map[syntax.NSID]int64{}
	complete = len(p.targets) <= planListings
	for i, page := range pages {
		cursor, n := "", 0
		for range max(planPages/len(pages), 1) {
			got, err := page(ctx, cursor)
			if err != nil {
				return false, err
			}
			p.dids = append(p.dids, got.DIDs...)
			n += len(got.DIDs)
			if cursor = got.Cursor; cursor == "" {
				break
			}
		}
		complete = complete && cursor == ""
		if len(p.targets) > 0 {
			p.listed[p.targets[i]] = int64(n)
		}
	}
	slices.Sort(p.dids)
	p.dids = slices.Compact(p.dids)
	return complete, nil
}

// count takes the relay's own estimate of the repos, and reports whether there is
// one. A repo with several of the collections is counted with each.
func (p *planner) count(ctx context.Context) bool {
	if len(p.targets) == 0 || len(p.targets) > planCounted {
		return false
	}
	counts, err := p.b.cfg.Network.CollectionCounts(ctx, p.targets)
	if err != nil {
		return false // not every relay has it, and it is only for a better estimate
	}
	var sum int64
	for _, t := range p.targets {
		p.listed[t] = max(p.listed[t], counts[t])
		sum += counts[t]
	}
	if sum < int64(len(p.dids)) {
		return false // it knows less than its own listing
	}
	p.plan.Repos = sum
	return true
}

// hostsOfRelay takes the hosts with their accounts from the relay, and reports
// whether it did: where every collection is wanted, every account is.
func (p *planner) hostsOfRelay(ctx context.Context) bool {
	if len(p.targets) > 0 {
		return false
	}
	accounts, total, cursor := map[string]int64{}, int64(0), ""
	for page := 0; page == 0 || cursor != ""; page++ {
		if page == planHosts {
			return false
		}
		got, err := p.b.cfg.Network.Hosts(ctx, cursor)
		if err != nil {
			return false // as in count
		}
		for _, h := range got.Hosts {
			accounts[string(h.Host)] += h.Accounts
			total += h.Accounts
		}
		cursor = got.Cursor
	}
	if total < int64(len(p.dids)) {
		return false
	}
	p.share = map[string]float64{}
	for host, n := range accounts {
		p.share[host] = float64(n) / float64(total)
	}
	p.plan.Repos, p.plan.ReposFrom = total, api.SourceRelay
	p.plan.Hosts, p.plan.HostsFrom = int64(len(accounts)), api.SourceRelay
	return true
}

// earlier is the latest job over the same collections of the network that has
// found and looked up everything, with the hosts that it has found.
func (p *planner) earlier(ctx context.Context) (jobs.Job, []jobs.JobHost, error) {
	jobList, err := p.b.cfg.Store.Jobs.List(ctx)
	if err != nil {
		return jobs.Job{}, nil, fmt.Errorf("plan: %w", err)
	}
	for _, j := range jobList {
		whole := j.Discovered && j.DiscoveryError == "" && j.Unresolved == 0 && j.RetryOf == 0
		if !whole || !j.Request.Network() || j.TotalRepos == 0 || !slices.Equal(j.Targets, p.targets) {
			continue
		}
		hosts, err := p.b.cfg.Store.Jobs.JobHosts(ctx, j.Seq)
		if errors.Is(err, store.ErrNotFound) {
			return j, nil, nil // its hosts are forgotten, and those of all before it
		}
		if err != nil {
			return jobs.Job{}, nil, fmt.Errorf("plan: %w", err)
		}
		return j, hosts, nil
	}
	return jobs.Job{}, nil, nil
}

// fromJob takes the hosts from an earlier job.
func (p *planner) fromJob(j jobs.Job, hosts []jobs.JobHost) {
	p.plan.HostsFrom, p.plan.EarlierJob = api.SourceJob, j.ID
	p.share, p.cheap = map[string]float64{}, map[string]bool{}
	for _, h := range hosts {
		if h.Total == 0 {
			continue
		}
		p.share[h.Host] = float64(h.Total) / float64(j.TotalRepos)
		p.cheap[h.Host] = h.Failed == h.Total && h.Total > 1
		p.plan.Hosts++
	}
}

// unreachable explains that somebody whom every such job needs does not answer.
func (p *planner) unreachable(ctx context.Context, host network.Host, who, flag string, err error) error {
	var (
		failed *network.Error
		parked *network.Parked
	)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &parked) && parked.Why == polite.WhyNetwork:
		return &PlanError{Text: "this machine has no network: plan again when it is back", Until: parked.Until}
	case errors.As(err, &parked):
		return &PlanError{Text: fmt.Sprintf("%s %s has asked to be left alone until %s: plan again then", who, host, parked.Until.UTC().Format(time.RFC3339)), Until: parked.Until}
	case errors.Is(err, context.DeadlineExceeded):
		return &PlanError{Text: fmt.Sprintf("%s %s did not answer in time: check that it can be reached from here, or choose another with %s", who, host, flag)}
	case errors.As(err, &failed) && host == p.b.cfg.Network.Relay():
		return &PlanError{Text: advise(failed, "plan again")}
	case errors.As(err, &failed):
		return &PlanError{Text: fmt.Sprintf("%s %s: %v: check that it is up and can be reached from here, or choose another with %s", who, host, failed, flag)}
	default:
		return err
	}
}

// byTime sorts loads: those that take longest first.
func byTime(a, b Load) int {
	return cmp.Or(cmp.Compare(b.Time, a.Time), cmp.Compare(b.Requests, a.Requests), cmp.Compare(a.Host, b.Host))
}
