package sandbox

import (
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

const (
	hostPage     = 500
	hostPageMost = 1000
	// cursorStep separates the arrival times, in milliseconds, that the cursors
	// of a host's listRepos are made of.
	cursorStep  = 1000
	cursorStart = WorldStart / 1000
)

func (h *host) getRepo(q query) answer {
	did, refusal := q.did()
	if refusal != nil {
		return *refusal
	}
	a, refusal := h.available(did.String())
	if refusal != nil {
		return *refusal
	}
	b, err := a.car((*q.buf)[:0], q.values.Get("since"))
	if err != nil {
		return broken(err)
	}
	*q.buf = b
	return answer{status: http.StatusOK, contentType: contentCAR, body: b, chunked: true}
}

// getRepoStatus is the one method that tells inactive accounts apart with a 200.
func (h *host) getRepoStatus(q query) answer {
	did, refusal := q.did()
	if refusal != nil {
		return *refusal
	}
	if a := h.world.find(did.String()); a != nil {
		a.mu.RLock()
		status, known := a.statusAt(h)
		rev := a.rev
		a.mu.RUnlock()
		if known {
			return okJSON(appendStatus(nil, did, status, rev))
		}
	}
	return failf(http.StatusBadRequest, "RepoNotFound", "Could not find repo for DID: %s", did)
}

func (h *host) getLatestCommit(q query) answer {
	did, refusal := q.did()
	if refusal != nil {
		return *refusal
	}
	a, refusal := h.available(did.String())
	if refusal != nil {
		return *refusal
	}
	head, err := a.currentHead()
	if err != nil {
		return broken(err)
	}
	return okJSON(appendCommit(nil, head))
}

// listRepos lists all accounts that the host knows, inactive ones too. Cursors
// are a time and a DID, and every page with repos has one.
func (h *host) listRepos(q query) answer {
	limit, refusal := q.limit(hostPage, hostPageMost)
	if refusal != nil {
		return *refusal
	}
	from := 0
	if cursor := q.values.Get("cursor"); cursor != "" {
		ms, _, ok := strings.Cut(cursor, "::")
		n, err := strconv.ParseInt(ms, 10, 64)
		if !ok || err != nil || n < cursorStart || n > math.MaxInt32*cursorStep {
			return fail(http.StatusBadRequest, "InvalidRequest", "Malformed cursor")
		}
		from = int((n-cursorStart)/cursorStep) + 1
	}
	h.mu.RLock()
	accounts := slices.Clip(h.accounts)
	h.mu.RUnlock()

	b := append((*q.buf)[:0], `{"repos":[`...)
	n, cursor := 0, ""
	for i := min(from, len(accounts)); i < len(accounts) && n < limit; i++ {
		a := accounts[i]
		a.mu.RLock()
		status, known := a.statusAt(h)
		a.mu.RUnlock()
		if !known {
			continue
		}
		head, err := a.headAt(h)
		if err != nil {
			return broken(err)
		}
		if n > 0 {
			b = append(b, ',')
		}
		b = appendRepo(b, a.did, head, status)
		n++
		cursor = strconv.FormatInt(cursorStart+int64(i)*cursorStep, 10) + "::" + a.did.String()
	}
	b = append(b, ']')
	if cursor != "" {
		b = append(append(append(b, `,"cursor":"`...), cursor...), '"')
	}
	b = append(b, '}')
	*q.buf = b
	return okJSON(b)
}
