package server

import (
	"context"
	"net/http"
	"strings"

	"appview/internal/api"
	"appview/store/admin"
)

// route is one thing that can be asked for.
type route struct {
	method     string // GET also answers HEAD
	path       string // a pattern of http.ServeMux
	permission api.Permission
	handler    http.Handler
}

// Paths are grouped by audience, which decides about keys and the shape of errors.
const (
	adminSpace = "/admin/"
	apiSpace   = "/api/"
	xrpcSpace  = "/xrpc/"

	metricsPath = "/metrics"
)

// routes is everything that is served. An empty permission is open to all.
func (s *Server) routes() []route {
	list := []route{
		{http.MethodPost, "/admin/backfill", api.BackfillCreate, s.answer(s.createBackfill)},
		{http.MethodGet, "/admin/backfill/status", api.BackfillRead, s.answer(s.listBackfills)},
		{http.MethodGet, "/admin/backfill/{id}", api.BackfillRead, s.answer(s.showBackfill)},
		{http.MethodPost, "/admin/backfill/{id}/cancel", api.BackfillCreate, bodyUnread(s.answer(s.cancelBackfill))},
		{http.MethodPost, "/admin/backfill/{id}/pause", api.BackfillCreate, bodyUnread(s.answer(s.pauseBackfill))},
		{http.MethodPost, "/admin/backfill/{id}/resume", api.BackfillCreate, bodyUnread(s.answer(s.resumeBackfill))},
		{http.MethodPost, "/admin/backfill/{id}/retry", api.BackfillCreate, s.answer(s.retryBackfill)},
		{http.MethodGet, "/admin/backfill/{id}/repos", api.BackfillRead, s.answer(s.listJobRepos)},
		{http.MethodGet, "/admin/backfill/{id}/pds-summary", api.BackfillRead, s.answer(s.listJobHosts)},
		{http.MethodGet, "/admin/backfill/{id}/report", api.BackfillRead, unhurried(s.stream(s.reportJob))},
		{http.MethodGet, "/admin/backfill/{id}/events", api.BackfillRead, unhurried(s.stream(s.streamJob))},

		{http.MethodGet, "/admin/records", api.RecordsRead, s.dated(s.answerPage(s.listRecords(query, maxAdminPage)))},
		{http.MethodDelete, "/admin/records", api.RecordsDelete, unhurried(s.answer(s.deleteRecords))},
		{http.MethodGet, "/admin/records/export", api.RecordsRead, unhurried(s.dated(s.stream(s.exportRecords)))},
		{http.MethodGet, "/admin/stats", api.StatsRead, s.answer(s.stats)},

		{http.MethodGet, "/admin/collections", api.CollectionsManage, s.answer(s.listCollections)},
		{http.MethodPost, "/admin/collections", api.CollectionsManage, s.answer(s.addCollection)},
		{http.MethodDelete, "/admin/collections", api.CollectionsManage, unhurried(s.answer(s.removeCollection))},

		{http.MethodGet, "/admin/denylist", api.DenylistManage, s.answer(s.listDenials)},
		{http.MethodPost, "/admin/denylist", api.DenylistManage, unhurried(s.answer(s.addDenial))},
		{http.MethodDelete, "/admin/denylist", api.DenylistManage, s.answer(s.removeDenial)},

		{http.MethodGet, "/admin/api-keys", api.KeysManage, s.answer(s.listKeys)},
		{http.MethodPost, "/admin/api-keys", api.KeysManage, s.answer(s.createKey)},
		{http.MethodDelete, "/admin/api-keys/{id}", api.KeysManage, s.answer(s.revokeKey)},
		{http.MethodGet, "/admin/events", api.AuditRead, s.answer(s.listEvents)},
		{http.MethodGet, "/admin/backup", api.Backup, unhurried(s.stream(s.backup))},

		{http.MethodGet, "/{$}", "", http.HandlerFunc(s.servePage)},
		{http.MethodGet, webSpace + "{file}", "", http.HandlerFunc(s.servePage)},
		{http.MethodGet, "/health", "", s.answer(s.health)},
		{http.MethodGet, "/ready", "", s.answer(s.ready)},
		{http.MethodGet, "/openapi.json", "", s.admitted(s.answer(s.describe))},
	}
	if s.cfg.Planner != nil {
		list = append(list, route{http.MethodGet, "/admin/backfill/plan", api.BackfillRead, s.answer(s.planBackfill)})
	}
	if s.cfg.Metrics != nil {
		list = append(list, route{http.MethodGet, metricsPath, "", s.GuardMetrics(s.cfg.Metrics)})
	}
	if s.cfg.NoPublicReads {
		return list
	}
	return append(list,
		route{http.MethodGet, "/api/records", "", s.dated(s.answerKept(s.listRecords(publicQuery, maxPublicPage)))},
		route{http.MethodGet, "/xrpc/com.atproto.repo.getRecord", "", s.dated(s.admitted(s.answer(s.xrpcGetRecord)))},
		route{http.MethodGet, "/xrpc/com.atproto.repo.listRecords", "", s.dated(s.answerKept(s.xrpcListRecords))},
	)
}

// newMux gives each path one handler for all its methods. Patterns with methods
// would let the mux answer wrong methods itself, in plain text and before the
// key is looked at.
func (s *Server) newMux() *http.ServeMux {
	byPath := map[string][]route{}
	for _, rt := range s.routes() {
		byPath[rt.path] = append(byPath[rt.path], rt)
	}
	mux := http.NewServeMux()
	for path, routes := range byPath {
		mux.Handle(path, s.dispatch(routes))
	}
	mux.Handle("/", s.dispatch(nil))
	return mux
}

// dispatch chooses among the routes of one path: first the key, then the method,
// then the permission, and only then anything else of the request. Browsers ask
// without a key whether a page of another origin may ask.
func (s *Server) dispatch(routes []route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.crossOrigin(w, r) {
			return
		}
		var held grant
		if isAdmin(r) {
			w.Header().Set("Cache-Control", "no-store")
			var err error
			if held, err = s.identify(r); err != nil {
				s.fail(w, r, err)
				return
			}
			ctx := admin.WithActor(r.Context(), held.actor)
			r = r.WithContext(context.WithValue(ctx, grantOf{}, held))
		}
		rt, ok := choose(routes, r.Method)
		switch {
		case len(routes) == 0:
			s.fail(w, r, unknownRoute(r))
		case !ok:
			s.fail(w, r, wrongMethod(r, routes))
		case rt.permission != "" && !held.allows(rt.permission):
			s.fail(w, r, forbidden(rt.permission))
		default:
			rt.handler.ServeHTTP(w, r)
		}
	})
}

func choose(routes []route, method string) (route, bool) {
	if method == http.MethodHead {
		method = http.MethodGet
	}
	for _, rt := range routes {
		if rt.method == method {
			return rt, true
		}
	}
	return route{}, false
}

// allowed is the value of the Allow header for a path.
func allowed(routes []route) string {
	var list []string
	for _, rt := range routes {
		list = append(list, rt.method)
		if rt.method == http.MethodGet {
			list = append(list, http.MethodHead)
		}
	}
	return strings.Join(list, ", ")
}

func isAdmin(r *http.Request) bool {
	return r.URL.Path+"/" == adminSpace || strings.HasPrefix(r.URL.Path, adminSpace)
}

func isXRPC(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, xrpcSpace) }
