package backfill

import (
	"context"
	"math"
	"slices"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/backfill/read"
	"appview/internal/api"
	"appview/internal/network"
)

const (
	relayPage  = 1000 // repos that a relay names on a page
	recordPage = 100  // records that a host lists on one
)

// add adds up what is known to what the job asks of whom, and how long it takes.
func (p *planner) add(ctx context.Context) error {
	each, ends := p.requests()
	loads, work := []Load{}, time.Duration(0)
	for host, share := range p.share {
		l, err := p.load(ctx, host, share, each, ends)
		if err != nil {
			return err
		}
		work += l.Time
		loads = append(loads, l)
	}
	slices.SortFunc(loads, byTime)
	total := Load{Role: api.RoleMaxHosts, Time: work / time.Duration(p.b.cfg.MaxHosts)}
	for _, l := range loads {
		total.Repos, total.Requests = total.Repos+l.Repos, total.Requests+l.Requests
	}
	if len(loads) > p.b.cfg.MaxHosts && total.Time > loads[0].Time {
		p.plan.Bottleneck = total
	}
	net := p.b.cfg.Network
	lookups := p.plan.Repos
	if p.whole() {
		lookups += lookups / read.FollowOneIn // for the key, where the status is asked for first
	}
	loads = append(loads, p.timed(Load{Host: string(net.PLC()), Role: api.RolePLC, Repos: p.plan.Repos, Requests: lookups}))
	if p.req.Network() {
		loads = append(loads, p.timed(Load{Host: string(net.Relay()), Role: api.RoleRelay, Repos: p.plan.Repos, Requests: p.pages()}))
	}
	loads = slices.DeleteFunc(loads, func(l Load) bool { return l.Requests == 0 })
	slices.SortFunc(loads, byTime)
	for _, l := range loads {
		p.plan.Requests += l.Requests
	}
	p.plan.Loads = loads
	if len(loads) > 0 && loads[0].Time >= p.plan.Bottleneck.Time {
		p.plan.Bottleneck = loads[0]
	}
	p.plan.Time = p.plan.Bottleneck.Time
	return nil
}

// load is what the job asks of a host: so many requests for each repo, and so many
// more as far as the ends of its listings have to be looked at.
func (p *planner) load(ctx context.Context, host string, share, each, ends float64) (Load, error) {
	repos := share * float64(p.plan.Repos)
	ends *= repos
	distrusted, err := p.b.cfg.Store.Work.Distrusted(ctx, host)
	if err != nil {
		return Load{}, err
	}
	if !distrusted && ends > read.MinEnds {
		ends = read.MinEnds + (ends-read.MinEnds)/read.FollowOneIn
	}
	l := Load{Host: host, Role: api.RolePDS, Repos: int64(math.Round(repos)), Requests: int64(math.Ceil(repos*each + ends))}
	if p.cheap[host] || p.b.cfg.Network.HostState(network.Host(host)).Down {
		l.Requests = min(l.Requests, maxProbes) // after which it is given up
	}
	return p.timed(l), nil
}

// timed says how long a load takes at the host's limits.
func (p *planner) timed(l Load) Load {
	net := p.b.cfg.Network
	l.Time = time.Duration(float64(l.Requests) / net.Rate(network.Host(l.Host)) * float64(time.Second))
	if until, parked := net.ParkedUntil(network.Host(l.Host)); parked && l.Requests > 0 {
		l.Time += max(until.Sub(p.b.now()), 0)
	}
	return l
}

// whole reports whether repos are read in one piece.
func (p *planner) whole() bool { return len(p.targets) == 0 || len(p.targets) > read.MaxListed }

// pages is how often the relay is asked for a page.
func (p *planner) pages() (n int64) {
	if len(p.targets) == 0 {
		return p.plan.Repos/relayPage + 1
	}
	for _, t := range p.targets {
		n += p.having(t)/relayPage + 1
	}
	return n
}

// having is about how many of the repos have records of a target.
func (p *planner) having(t syntax.NSID) int64 {
	listed, known := p.listed[t]
	if len(p.targets) == 1 || !known {
		return p.plan.Repos
	}
	return min(max(listed, p.stats.Collections[t].Repos), p.plan.Repos)
}

// requests is how many requests a repo takes at its host: the whole of it, with a look at
// its status now and then; or that look and the pages of each target, and another look at the
// status unless one page was all. ends is how many listings end with a page that
// may have another behind it.
func (p *planner) requests() (each, ends float64) {
	if p.whole() {
		p.plan.RequestsFrom = api.SourceFixed
		return 1 + 1.0/read.FollowOneIn, 0
	}
	p.plan.RequestsFrom = api.SourceIndex
	each, moments := 1.0, 0.0
	for _, t := range p.targets {
		held, pages := p.stats.Collections[t], 1.0
		if held.Repos > 0 {
			pages = max(1, math.Ceil(float64(held.Records)/float64(held.Repos)/recordPage))
		} else {
			p.plan.RequestsFrom = api.SourceAssumed
		}
		part := 1.0
		if p.plan.Repos > 0 {
			part = float64(p.having(t)) / float64(p.plan.Repos)
		}
		if pages > read.MaxBuffered {
			each += part // for the whole repo, in place of the rest and its end
			pages = read.MaxBuffered
		} else {
			ends += part
		}
		each += 1 - part + part*pages // a repo that has none of it answers with an empty page
		moments += pages
	}
	if moments > 1 {
		each++
	}
	return each, ends
}
