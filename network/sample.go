package network

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/network/outcome"
)

// question is what a host can be asked about any account, and may answer with "there is
// nothing" without saying what there is not.
type question int

const (
	questionStatus question = iota
	questionCommit
	questionRepo
	questionDocument // of the directory
	questions
)

func questionOf(op string) (question, bool) {
	switch op {
	case methodRepoStatus:
		return questionStatus, true
	case methodLatestCommit:
		return questionCommit, true
	case methodGetRepo:
		return questionRepo, true
	case opLookup:
		return questionDocument, true
	default:
		return 0, false
	}
}

// samples are, for each question, the last two accounts that a host has answered it
// for. Asked once more about one of them, a host shows whether "there is nothing" is its
// answer about one account, or the answer of a proxy, or of another program, about all.
type samples [questions][2]syntax.DID

// add puts an account in front.
func (s *samples) add(q question, did syntax.DID) {
	if s[q][0] != did {
		s[q] = [2]syntax.DID{did, s[q][0]}
	}
}

// other is the latest that is not did; empty if there is none.
func (s *samples) other(q question, did syntax.DID) syntax.DID {
	if s[q][0] != did {
		return s[q][0]
	}
	return s[q][1]
}

// remove forgets one that is not answered for any more.
func (s *samples) remove(q question, did syntax.DID) {
	switch did {
	case s[q][0]:
		s[q] = [2]syntax.DID{s[q][1]}
	case s[q][1]:
		s[q][1] = ""
	}
}

// rememberAnswer makes an account a sample of those that a host answers a question for.
func (c *Client) rememberAnswer(host Host, q question, did syntax.DID) {
	if g := c.gates.look(host); g != nil {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.samples.add(q, did)
		g.unknown = nil
	}
}

// maxRefused is how many accounts in a row a host may refuse in every way, without a word
// and with no answer about any other, before it counts as a proxy with nothing behind it.
// It is more than are asked about at once.
const maxRefused = 16

// countRefused counts an account that a host has refused in every way.
func (c *Client) countRefused(host Host, did syntax.DID) {
	if g := c.gates.look(host); g != nil {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.unknown == nil {
			g.unknown = make(map[syntax.DID]struct{}, maxRefused)
		}
		if len(g.unknown) < maxRefused {
			g.unknown[did] = struct{}{}
		}
	}
}

// answersNobody reports whether a host has refused so many accounts that a refusal
// without a word does not show that it is there.
func (g *gate) answersNobody() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.unknown) >= maxRefused
}

// inferNotFound looks for another account that a host answers the question for that it
// has refused for this one. If there is one, the host does not have this account, and the
// error says so. It is nil where there is no telling, and another where the host could
// not be asked.
func (c *Client) inferNotFound(ctx context.Context, host Host, did syntax.DID, refused *Error) error {
	q, ok := questionOf(refused.Op)
	g := c.gates.look(host)
	if !ok || g == nil || !refused.absent() || refused.Host != host {
		return nil
	}
	other, err := c.answeredOther(ctx, g, q, did)
	if err != nil || other == "" {
		return err
	}
	return &Error{
		Op: refused.Op, Host: host, Reason: outcome.ReasonNotFound, Status: refused.Status, Name: refused.Name, Message: refused.Message,
		Inferred: true, Err: fmt.Errorf("not in so many words, but it answers for %s", other),
	}
}

// answeredOther is another account than did that the host answers the question for now;
// empty if there is none that we know, or that the host lists.
func (c *Client) answeredOther(ctx context.Context, g *gate, q question, did syntax.DID) (syntax.DID, error) {
	g.mu.Lock()
	known := g.samples.other(q, did)
	g.mu.Unlock()
	if known != "" {
		if answers, err := c.answersFor(ctx, g.host, q, known); err != nil {
			return "", err
		} else if answers {
			return known, nil
		}
		g.mu.Lock()
		g.samples.remove(q, known)
		g.mu.Unlock()
	}
	for _, other := range c.neighbours(ctx, g, q, did) {
		if answers, err := c.answersFor(ctx, g.host, q, other); err != nil {
			return "", err
		} else if answers {
			c.rememberAnswer(g.host, q, other)
			return other, nil
		}
	}
	return "", nil
}

const (
	maxNeighbours  = 3
	neighbourPage  = 10
	neighbourEvery = time.Minute // for each question to a host
)

// neighbours are some accounts other than did that a host lists, if it lists any. It is
// not asked for them again and again: most hosts that refuse so refuse everybody.
func (c *Client) neighbours(ctx context.Context, g *gate, q question, did syntax.DID) []syntax.DID {
	now := c.cfg.Now()
	g.mu.Lock()
	soon := now.Sub(g.sought[q]) < neighbourEvery
	if !soon {
		g.sought[q] = now
	}
	g.mu.Unlock()
	if soon || q == questionDocument {
		return nil
	}
	a, err := c.fetch(ctx, call{
		op: methodRepos, host: g.host, limit: maxStatusBody,
		target: xrpc(methodRepos, url.Values{"limit": {strconv.Itoa(neighbourPage)}}),
	})
	if err != nil {
		return nil // it has no listing, or is not to be asked now
	}
	defer a.release()
	page, err := readRepos(a.body)
	if err != nil {
		return nil
	}
	others := slices.DeleteFunc(page.DIDs, func(other syntax.DID) bool { return other == did })
	return others[:min(len(others), maxNeighbours)]
}

// answersFor reports whether a host answers a question about an account. Of a whole
// repo it reads no more than shows that it comes.
func (c *Client) answersFor(ctx context.Context, host Host, q question, did syntax.DID) (bool, error) {
	about := call{host: host, limit: maxStatusBody, subject: did.String()}
	query := url.Values{"did": {did.String()}}
	switch q {
	case questionStatus:
		about.op, about.target = methodRepoStatus, xrpc(methodRepoStatus, query)
	case questionCommit:
		about.op, about.target = methodLatestCommit, xrpc(methodLatestCommit, query)
	case questionRepo:
		about.op, about.target, about.lane, about.accept = methodGetRepo, xrpc(methodGetRepo, query), laneRepo, typeCAR
	default:
		about.op, about.target, about.limit = opLookup, "/"+did.String(), maxDocument
	}
	a, err := c.fetch(ctx, about)
	if err == nil {
		a.release()
		return true, nil
	}
	e, ok := errors.AsType[*Error](err)
	switch {
	case !ok:
		return false, err
	case e.Reason == outcome.ReasonTooLarge:
		return true, nil
	case e.missing():
		return false, nil
	case e.Reason.Class() == outcome.ClassUnavailable:
		return true, nil // it speaks of that account
	default:
		return false, err
	}
}
