package backfill

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"golang.org/x/sync/errgroup"

	"appview/internal/api"
	"appview/internal/network"
	"appview/internal/network/outcome"
)

// sample finds out how the repos are spread over hosts from some of those that the
// listings have named, chosen by chance: the index knows many already, the others
// are looked up. all says that there are no others than those listed.
func (p *planner) sample(ctx, own context.Context, all bool) error {
	found, missing, err := p.draw(ctx, own)
	if err != nil {
		return err
	}
	counted := 0
	for _, n := range found {
		counted += n
	}
	p.plan.Sampled, p.plan.HostsFrom = counted, api.SourceSample
	if all && missing == 0 {
		p.plan.HostsFrom = api.SourceLookup
	}
	unhoused := found[unknownHost]
	delete(found, unknownHost)
	p.plan.Hosts = int64(len(found))
	if p.plan.HostsFrom == api.SourceLookup {
		p.share = map[string]float64{}
		for host, n := range found {
			p.share[host] = float64(n) / float64(counted)
		}
		return nil
	}
	p.share = shrink(found)
	for host := range p.share {
		p.share[host] *= float64(counted-unhoused) / float64(counted)
	}
	p.plan.Hosts = min(richness(found), max(p.plan.Repos, p.plan.Hosts))
	return nil
}

// draw counts repos by host, under the empty one those that have none, and says how
// many of the listed ones it has not.
func (p *planner) draw(ctx, own context.Context) (found map[string]int, missing int, err error) {
	found = map[string]int{}
	order, look := rand.Perm(len(p.dids)), []int(nil)
	taken := 0
	for _, i := range order {
		host, err := p.known(ctx, p.dids[i])
		if err != nil {
			return nil, 0, err
		}
		if host != unknownHost {
			found[host]++
		} else if len(look) == planLookups {
			break // what would follow are only those that the index knows
		} else {
			look = append(look, i)
		}
		taken++
	}
	hosts := make([]string, len(look))
	fails := make([]error, len(look))
	own, cancel := context.WithTimeout(own, planLookTime)
	defer cancel()
	g, gctx := errgroup.WithContext(own)
	g.SetLimit(planWidth)
	for n, i := range look {
		g.Go(func() error {
			hosts[n], fails[n] = p.lookUp(gctx, p.dids[i])
			var parked *network.Parked
			if errors.As(fails[n], &parked) && parked.Host == p.b.cfg.Network.PLC() {
				return parked // no use to ask for the others
			}
			return nil
		})
	}
	_ = g.Wait() // it is among fails
	failed := 0
	var last error
	for n := range look {
		if fails[n] != nil {
			failed, last = failed+1, fails[n]
			continue
		}
		found[hosts[n]]++
	}
	if failed > 0 && failed == taken {
		return nil, 0, p.unreachable(ctx, p.b.cfg.Network.PLC(), "the directory", "--plc", last)
	}
	return found, len(p.dids) - taken + failed, nil
}

// lookUp is where a listed repo lives, empty if it has no host.
func (p *planner) lookUp(ctx context.Context, did syntax.DID) (string, error) {
	ident, err := p.b.cfg.Network.Lookup(ctx, did)
	var failed *network.Error
	if errors.As(err, &failed) && failed.Reason != outcome.ReasonDIDLookup {
		return unknownHost, nil // an answer: it is settled without being read
	}
	return string(ident.PDS), err
}

// shrink estimates the shares of hosts from a sample. The largest count of a small
// sample is mostly luck: of a hundred hosts with equal shares, one is drawn six
// times in two hundred. So all counts are drawn towards their mean, by as much as
// makes the sum of the squares what the pairs of repos at one host say it is, which
// is no matter of luck.
func shrink(found map[string]int) map[string]float64 {
	var n, pairs, squares float64
	for _, k := range found {
		n += float64(k)
		pairs += float64(k) * float64(k-1)
		squares += float64(k) * float64(k)
	}
	mean, keep := 1/float64(len(found)), 1.0
	if n > 1 && squares/(n*n) > mean {
		keep = math.Sqrt(max(0, (pairs/(n*(n-1))-mean)/(squares/(n*n)-mean)))
	}
	share := make(map[string]float64, len(found))
	for host, k := range found {
		share[host] = keep*float64(k)/n + (1-keep)*mean
	}
	return share
}

// richness estimates how many hosts there are from how many were drawn once and
// twice (Chao's estimate, which is rather too low than too high).
func richness(found map[string]int) int64 {
	once, twice := 0, 0
	for _, k := range found {
		switch k {
		case 1:
			once++
		case 2:
			twice++
		}
	}
	return int64(len(found) + once*(once-1)/(2*(twice+1)))
}
