package sandbox

import (
	"net/http"
	"net/url"
	"strconv"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

const (
	relayPage               = 500
	relayPageMost           = 1000
	relayCollectionPageMost = 2000
)

// RelayMode is how the relay behaves.
type RelayMode int32

// The ways in which a relay can behave.
const (
	RelayUp            RelayMode = iota
	RelayDown                    // breaks every connection without an answer
	RelayBadGateway              // answers 502 with HTML, as a proxy before a dead relay
	RelayNoCollections           // has no listReposByCollection: 501 MethodNotImplemented
	RelayNotFound                // has no listReposByCollection: 404 with plain text
	RelayNoEstimates             // has neither listCollections nor listHosts
)

// SetRelay changes how the relay behaves from the next request on.
func (w *World) SetRelay(mode RelayMode) { w.relayMode.Store(int32(mode)) }

func (w *World) relayEndpoints() map[string]endpoint {
	return map[string]endpoint{
		methodListReposByCollection: w.relayListReposByCollection,
		methodListCollections:       w.relayListCollections,
		methodListRepos:             w.relayListRepos,
		methodListHosts:             w.relayListHosts,
		MethodGetRepo:               w.relayGetRepo,
		MethodGetRepoStatus:         w.relayGetRepoStatus,
		MethodGetLatestCommit:       w.relayGetLatestCommit,
		methodHealth:                func(query) answer { return okJSON([]byte(`{"status":"ok"}`)) },
	}
}

// relayGate answers for a relay that is not well.
func (w *World) relayGate(method string) *answer {
	var a answer
	switch mode := RelayMode(w.relayMode.Load()); {
	case mode == RelayDown:
		a = answer{drop: true}
	case mode == RelayBadGateway:
		a = answer{
			status: http.StatusBadGateway, contentType: contentHTML,
			body: []byte("<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>\n"),
		}
	case mode == RelayNoCollections && method == methodListReposByCollection:
		a = fail(http.StatusNotImplemented, "MethodNotImplemented", "Method Not Implemented")
	case mode == RelayNotFound && method == methodListReposByCollection:
		a = answer{status: http.StatusNotFound, contentType: contentText, body: []byte("404 page not found\n")}
	case mode == RelayNoEstimates && method == methodListCollections:
		a = answer{status: http.StatusNotFound, contentType: contentText, body: []byte("404 page not found\n")}
	case mode == RelayNoEstimates && method == methodListHosts:
		a = fail(http.StatusNotImplemented, "MethodNotImplemented", "Method Not Implemented")
	default:
		return nil
	}
	return &a
}

// relayListReposByCollection answers as indigo's collectiondir: limits are
// clamped, not refused, and a full page has a cursor even if it is the last.
func (w *World) relayListReposByCollection(q query) answer {
	collection, err := syntax.ParseNSID(q.values.Get("collection"))
	if err != nil {
		return failf(http.StatusBadRequest, "BadRequest", "bad collection nsid, %s", err)
	}
	limit := relayPage
	if n, err := strconv.Atoi(q.values.Get("limit")); err == nil {
		limit = min(max(n, 1), relayCollectionPageMost)
	}
	from, err := unpackCursor(q.values.Get("cursor"))
	if err != nil {
		return fail(http.StatusInternalServerError, "DatabaseError", "failed to read DIDs for collection")
	}
	dids, next, more := w.directory.page(collection, from, limit)
	b := (*q.buf)[:0]
	b = append(b, '{')
	if more {
		b = append(append(append(b, `"cursor":"`...), packCursor(next)...), `",`...)
	}
	b = append(b, `"repos":[`...)
	for i, did := range dids {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(append(b, `{"did":"`...), did...), `"}`...)
	}
	b = append(b, `]}`...)
	*q.buf = b
	return okJSON(b)
}

// relayListRepos lists active accounts. The cursor is the relay's own number of
// the last account; a page of one has none, as on the real relay.
func (w *World) relayListRepos(q query) answer {
	limit, cursor := relayPage, 0
	var err error
	if s := q.values.Get("limit"); s != "" {
		if limit, err = strconv.Atoi(s); err != nil || limit < 1 || limit > relayPageMost {
			return failf(http.StatusBadRequest, "BadRequest", "limit parameter invalid: %s", s)
		}
	}
	if s := q.values.Get("cursor"); s != "" {
		if cursor, err = strconv.Atoi(s); err != nil || cursor < 0 {
			return failf(http.StatusBadRequest, "BadRequest", "limit parameter invalid cursor: %s", s)
		}
	}
	accounts := w.accounts()
	b := append((*q.buf)[:0], `{"repos":[`...)
	n, last := 0, 0
	for i := min(cursor, len(accounts)); i < len(accounts) && n < limit; i++ {
		a := accounts[i]
		if a.currentStatus() != StatusActive || w.directory.isForgotten(a.did) {
			continue
		}
		h, err := a.currentHead()
		if err != nil {
			return broken(err)
		}
		if n > 0 {
			b = append(b, ',')
		}
		b = appendRepo(b, a.did, h, StatusActive)
		n, last = n+1, i+1 // numbers begin at 1
	}
	b = append(b, ']')
	if n >= limit && n > 1 {
		b = append(strconv.AppendInt(append(b, `,"cursor":"`...), int64(last), 10), '"')
	}
	b = append(b, '}')
	*q.buf = b
	return okJSON(b)
}

// appendRepo writes one row of listRepos, of a relay and of a host.
func appendRepo(b []byte, did syntax.DID, h *Head, status Status) []byte {
	b = append(append(append(b, `{"did":"`...), did...), `","head":"`...)
	b = append(append(append(b, h.CID.String()...), `","rev":"`...), h.Rev...)
	if status == StatusActive {
		return append(b, `","active":true}`...)
	}
	return append(append(append(b, `","active":false,"status":"`...), status...), `"}`...)
}

// relayGetRepo sends the client to the account's host without a look at its
// status.
func (w *World) relayGetRepo(q query) answer {
	did, err := syntax.ParseDID(q.values.Get("did"))
	if err != nil {
		return failf(http.StatusBadRequest, "BadRequest", "missing or invalid DID parameter: %s", err)
	}
	a := w.find(did.String())
	if a == nil {
		return failf(http.StatusNotFound, "RepoNotFound", "could not resolve DID: DID not found: %s", did)
	}
	target := a.public().Host + xrpcPrefix + MethodGetRepo + "?did=" + url.QueryEscape(did.String())
	if since := q.values.Get("since"); since != "" {
		target += "&since=" + url.QueryEscape(since)
	}
	return answer{status: http.StatusFound, header: http.Header{"Location": {target}}}
}

func (w *World) relayGetRepoStatus(q query) answer {
	a, refusal := w.relayAccount(q)
	if refusal != nil {
		return *refusal
	}
	r := a.public()
	return okJSON(appendStatus(nil, r.DID, r.Status, r.Rev))
}

func (w *World) relayGetLatestCommit(q query) answer {
	a, refusal := w.relayAccount(q)
	if refusal != nil {
		return *refusal
	}
	switch status := a.currentStatus(); status {
	case StatusTakendown, StatusSuspended:
		return fail(http.StatusForbidden, "RepoTakendown", "account not active (takendown)")
	case StatusDeactivated:
		return fail(http.StatusForbidden, "RepoDeactivated", "account not active (deactivated)")
	case StatusDeleted:
		return fail(http.StatusForbidden, "RepoDeleted", "account not active (deleted)")
	case StatusActive:
	}
	h, err := a.currentHead()
	if err != nil {
		return broken(err)
	}
	return okJSON(appendCommit(nil, h))
}

func (w *World) relayAccount(q query) (*account, *answer) {
	did, err := syntax.ParseDID(q.values.Get("did"))
	if err != nil {
		a := failf(http.StatusBadRequest, "BadRequest", "missing or invalid DID parameter: %s", err)
		return nil, &a
	}
	if a := w.find(did.String()); a != nil && !w.directory.isForgotten(did) {
		return a, nil
	}
	a := fail(http.StatusNotFound, "RepoNotFound", "account not found")
	return nil, &a
}

// appendStatus writes getRepoStatus; the rev of an inactive account is left out.
func appendStatus(b []byte, did syntax.DID, status Status, rev syntax.TID) []byte {
	b = append(append(append(b, `{"did":"`...), did...), `","active":`...)
	if status == StatusActive {
		return append(append(append(b, `true,"rev":"`...), rev...), `"}`...)
	}
	return append(append(append(b, `false,"status":"`...), status...), `"}`...)
}

func appendCommit(b []byte, h *Head) []byte {
	b = append(append(append(b, `{"cid":"`...), h.CID.String()...), `","rev":"`...)
	return append(append(b, h.Rev...), `"}`...)
}
