package sandbox

import (
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/sandbox/encode"
)

const (
	recordsPage     = 50
	recordsPageMost = 100
)

// host is one PDS.
type host struct {
	*part

	counts atomic.Bool // the revs of who moves here

	mu       sync.RWMutex
	accounts []*account // all that ever came here, in order of arrival
}

func (h *host) admit(a *account) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.accounts = append(h.accounts, a)
}

func (h *host) endpoints() map[string]endpoint {
	return map[string]endpoint{
		MethodListRecords:     h.listRecords,
		methodGetRecord:       h.getRecord,
		MethodDescribeRepo:    h.describeRepo,
		MethodGetRepo:         h.getRepo,
		MethodGetProof:        h.getProof,
		MethodGetRepoStatus:   h.getRepoStatus,
		MethodGetLatestCommit: h.getLatestCommit,
		methodListRepos:       h.listRepos,
		methodHealth:          func(query) answer { return okJSON([]byte(`{"version":"0.4.0"}`)) },
	}
}

// listRecords does not say why a repo is not there: for a missing, moved,
// deactivated, taken-down and deleted one the reference PDS sends the same error.
// Every page with records has a cursor, the last one too.
func (h *host) listRecords(q query) answer {
	repo, refusal := q.repo()
	if refusal != nil {
		return *refusal
	}
	collection, refusal := q.collection()
	if refusal != nil {
		return *refusal
	}
	limit, refusal := q.limit(recordsPage, recordsPageMost)
	if refusal != nil {
		return *refusal
	}
	reverse, refusal := q.boolean("reverse")
	if refusal != nil {
		return *refusal
	}
	var page []*record
	if a := h.world.find(repo); a == nil || !a.ifActiveAt(h, func() {
		page = a.shelves[collection].page(syntax.RecordKey(q.req.Cursor), limit, reverse)
	}) {
		return failf(http.StatusBadRequest, "InvalidRequest", "Could not find repo: %s", repo)
	}
	b := append((*q.buf)[:0], `{"records":[`...)
	for i, r := range page {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, r.item...)
	}
	b = append(b, ']')
	if len(page) > 0 {
		b = append(append(append(b, `,"cursor":"`...), page[len(page)-1].rkey...), '"')
	}
	b = append(b, '}')
	*q.buf = b
	return okJSON(b)
}

// ifActiveAt looks at an account under its lock if the host serves it.
func (a *account) ifActiveAt(h *host, look func()) bool {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if a.host != h || a.status != StatusActive {
		return false
	}
	look()
	return true
}

func (h *host) getRecord(q query) answer {
	repo, refusal := q.repo()
	if refusal != nil {
		return *refusal
	}
	collection, refusal := q.collection()
	if refusal != nil {
		return *refusal
	}
	rkey, refusal := q.rkey()
	if refusal != nil {
		return *refusal
	}
	var found *record
	a := h.world.find(repo)
	if a != nil {
		repo = a.did.String()
		a.ifActiveAt(h, func() { found = a.shelves[collection].get(rkey) })
	}
	want := q.values.Get("cid")
	if found == nil || (want != "" && want != found.text) {
		return failf(http.StatusBadRequest, "RecordNotFound", "Could not locate record: at://%s/%s/%s", repo, collection, rkey)
	}
	return okJSON(found.item)
}

func (h *host) describeRepo(q query) answer {
	repo, refusal := q.repo()
	if refusal != nil {
		return *refusal
	}
	a, refusal := h.available(repo)
	if refusal != nil {
		return *refusal
	}
	document, registered, err := a.didDocument()
	if err != nil {
		return broken(err)
	}
	if !registered {
		return failf(http.StatusBadRequest, "InvalidRequest", "Could not resolve DID: DID not available: %s", a.did)
	}
	a.mu.RLock()
	collections := a.collections()
	a.mu.RUnlock()
	b := encode.String([]byte(`{"handle":`), a.handle)
	b = encode.String(append(b, `,"did":`...), a.did.String())
	b = append(append(b, `,"didDoc":`...), document...)
	b = append(b, `,"collections":[`...)
	for i, collection := range collections {
		if i > 0 {
			b = append(b, ',')
		}
		b = encode.String(b, collection.String())
	}
	return okJSON(append(b, `],"handleIsCorrect":true}`...))
}

// available is the account if the host serves its repo, or the refusal that
// says why not.
func (h *host) available(repo string) (*account, *answer) {
	a := h.world.find(repo)
	status, known := Status(""), false
	if a != nil {
		a.mu.RLock()
		status, known = a.statusAt(h)
		a.mu.RUnlock()
	}
	if !known {
		refusal := failf(http.StatusBadRequest, "RepoNotFound", "Could not find repo for DID: %s", repo)
		return nil, &refusal
	}
	var refusal answer
	switch status {
	case StatusTakendown:
		refusal = failf(http.StatusBadRequest, "RepoTakendown", "Repo has been takendown: %s", repo)
	case StatusSuspended:
		refusal = failf(http.StatusBadRequest, "RepoSuspended", "Repo has been suspended: %s", repo)
	case StatusDeactivated:
		refusal = failf(http.StatusBadRequest, "RepoDeactivated", "Repo has been deactivated: %s", repo)
	default:
		return a, nil
	}
	return nil, &refusal
}
