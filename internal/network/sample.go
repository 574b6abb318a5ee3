package network

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/network/outcome"
	"appview/internal/network/transport"
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

// samples remembers, for each host, accounts that it has answered for, and accounts that it
// has refused. Asked once more about one of the former, a host shows whether "there is
// nothing" is its answer about one account, or the answer of a proxy, or of another program,
// about all.
type samples struct {
	mu    sync.Mutex
	hosts map[Host]*hostSamples
}

// hostSamples are those of one host.
type hostSamples struct {
	answered [questions][2]syntax.DID // the last two, the latest first
	searched [questions]time.Time     // when other accounts were searched for
	refused  map[syntax.DID]struct{}  // in every way, since the host has answered for any
}

// of returns the samples of a host. The caller holds the lock.
func (s *samples) of(host Host) *hostSamples {
	h := s.hosts[host]
	if h == nil {
		if s.hosts == nil {
			s.hosts = make(map[Host]*hostSamples)
		}
		h = new(hostSamples)
		s.hosts[host] = h
	}
	return h
}

// forget removes the samples of a host, when its gate is forgotten.
func (s *samples) forget(host Host) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.hosts, host)
}

// add puts an account that a host has answered a question for in front.
func (s *samples) add(host Host, q question, did syntax.DID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.of(host)
	if h.answered[q][0] != did {
		h.answered[q] = [2]syntax.DID{did, h.answered[q][0]}
	}
	h.refused = nil
}

// other is the latest that is not did; empty if there is none.
func (s *samples) other(host Host, q question, did syntax.DID) syntax.DID {
	s.mu.Lock()
	defer s.mu.Unlock()
	answered := &s.of(host).answered[q]
	if answered[0] != did {
		return answered[0]
	}
	return answered[1]
}

// remove forgets an account that a host does not answer for any more.
func (s *samples) remove(host Host, q question, did syntax.DID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	answered := &s.of(host).answered[q]
	switch did {
	case answered[0]:
		*answered = [2]syntax.DID{answered[1]}
	case answered[1]:
		answered[1] = ""
	}
}

// beginSearch reports whether other accounts may be searched for, which is not often: most
// hosts that refuse without a word refuse everybody.
func (s *samples) beginSearch(host Host, q question, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.of(host)
	if now.Sub(h.searched[q]) < neighbourEvery {
		return false
	}
	h.searched[q] = now
	return true
}

// maxRefused is how many accounts in a row a host may refuse in every way, without a word
// and with no answer about any other, before it counts as a proxy with nothing behind it.
// It is more than are asked about at once.
const maxRefused = 16

// countRefused counts an account that a host has refused in every way.
func (s *samples) countRefused(host Host, did syntax.DID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.of(host)
	if h.refused == nil {
		h.refused = make(map[syntax.DID]struct{}, maxRefused)
	}
	if len(h.refused) < maxRefused {
		h.refused[did] = struct{}{}
	}
}

// refusesAll reports whether a host has refused so many accounts that a refusal
// without a word does not show that it is there.
func (s *samples) refusesAll(host Host) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.hosts[host]
	return h != nil && len(h.refused) >= maxRefused
}

// inferNotFound looks for another account that a host answers the question for that it
// has refused for this one. If there is one, the host does not have this account, and the
// error says so. It is nil where there is no telling, and another where the host could
// not be asked.
func (c *Client) inferNotFound(ctx context.Context, host Host, did syntax.DID, refused *Error) error {
	q, ok := questionOf(refused.Op)
	if !ok || !refused.NothingThere() || refused.Host != host {
		return nil
	}
	other, err := c.answeredOther(ctx, host, q, did)
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
func (c *Client) answeredOther(ctx context.Context, host Host, q question, did syntax.DID) (syntax.DID, error) {
	if known := c.samples.other(host, q, did); known != "" {
		if answers, err := c.answersFor(ctx, host, q, known); err != nil {
			return "", err
		} else if answers {
			return known, nil
		}
		c.samples.remove(host, q, known)
	}
	for _, other := range c.neighbours(ctx, host, q, did) {
		if answers, err := c.answersFor(ctx, host, q, other); err != nil {
			return "", err
		} else if answers {
			c.samples.add(host, q, other)
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

// neighbours are some accounts other than did that a host lists, if it lists any.
func (c *Client) neighbours(ctx context.Context, host Host, q question, did syntax.DID) []syntax.DID {
	if !c.samples.beginSearch(host, q, c.cfg.Now()) || q == questionDocument {
		return nil
	}
	query := url.Values{"limit": {strconv.Itoa(neighbourPage)}}
	a, err := c.fetch(ctx, newServiceRequest(methodRepos, host, "", xrpc(methodRepos, query), maxStatusBody))
	if err != nil {
		return nil // it has no listing, or is not to be asked now
	}
	defer a.Release()
	page, err := readRepos(a.Body)
	if err != nil {
		return nil
	}
	others := slices.DeleteFunc(page.DIDs, func(other syntax.DID) bool { return other == did })
	return others[:min(len(others), maxNeighbours)]
}

// answersFor reports whether a host answers a question about an account. Of a whole
// repo it reads no more than shows that it comes.
func (c *Client) answersFor(ctx context.Context, host Host, q question, did syntax.DID) (bool, error) {
	var about transport.Request
	switch q {
	case questionStatus:
		about = statusRequest(methodRepoStatus, host, did)
	case questionCommit:
		about = statusRequest(methodLatestCommit, host, did)
	case questionRepo:
		about = repoRequest(host, did, maxStatusBody)
	default:
		about = documentRequest(host, did.String(), "/"+did.String())
	}
	a, err := c.fetch(ctx, about)
	if err == nil {
		a.Release()
		return true, nil
	}
	e, ok := errors.AsType[*Error](err)
	switch {
	case !ok:
		return false, err
	case e.Reason == outcome.ReasonTooLarge:
		return true, nil
	case e.NoSuchMethod():
		return false, nil
	case e.Reason.Class() == outcome.ClassUnavailable:
		return true, nil // it speaks of that account
	default:
		return false, err
	}
}
