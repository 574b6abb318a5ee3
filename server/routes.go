package server

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"appview/server/answer"
	"appview/server/openapi"
	"appview/server/web"
	"appview/store/admin"
)

// routes is everything that is served. An empty permission is open to all.
func (s *Server) routes() []answer.Route {
	list := slices.Concat(s.reads.Admin(), s.control.Routes(), []answer.Route{
		answer.Get("/{$}", "", http.HandlerFunc(s.servePage)),
		answer.Get(web.Space+"{file}", "", http.HandlerFunc(s.servePage)),
		answer.Get("/health", "", s.out.Answer(s.health)),
		answer.Get("/ready", "", s.out.Answer(s.ready)),
		answer.Get("/openapi.json", "", s.out.Admitted(s.out.Answer(s.showDescription))),
	})
	if s.cfg.Metrics != nil {
		list = append(list, answer.Get(answer.MetricsPath, "", s.GuardMetrics(s.cfg.Metrics)))
	}
	if s.cfg.NoPublicReads {
		return list
	}
	return append(list, s.reads.Public()...)
}

// newMux gives each path one handler for all its methods. Patterns with methods
// would let the mux answer wrong methods itself, in plain text and before the
// key is looked at.
func (s *Server) newMux() *http.ServeMux {
	byPath := map[string][]answer.Route{}
	for _, rt := range s.routes() {
		byPath[rt.Path] = append(byPath[rt.Path], rt)
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
func (s *Server) dispatch(routes []answer.Route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.crossOrigin(w, r) {
			return
		}
		var held grant
		if answer.IsAdmin(r) {
			w.Header().Set("Cache-Control", "no-store")
			var err error
			if held, err = s.identify(r); err != nil {
				s.out.Fail(w, r, err)
				return
			}
			ctx := admin.WithActor(r.Context(), held.actor)
			r = r.WithContext(context.WithValue(ctx, grantOf{}, held))
		}
		rt, ok := choose(routes, r.Method)
		switch {
		case len(routes) == 0:
			s.out.Fail(w, r, answer.UnknownRoute(r))
		case !ok:
			s.out.Fail(w, r, answer.WrongMethod(r, routes))
		case rt.Permission != "" && !held.allows(rt.Permission):
			s.out.Fail(w, r, forbidden(rt.Permission))
		default:
			rt.Handler.ServeHTTP(w, r)
		}
	})
}

func choose(routes []answer.Route, method string) (answer.Route, bool) {
	if method == http.MethodHead {
		method = http.MethodGet
	}
	for _, rt := range routes {
		if rt.Method == method {
			return rt, true
		}
	}
	return answer.Route{}, false
}

// describe is the description of what is served.
func (s *Server) describe() (json.RawMessage, error) {
	served := map[string]bool{}
	for _, rt := range s.routes() {
		served[strings.ToLower(rt.Method)+" "+strings.TrimSuffix(rt.Path, "{$}")] = true
	}
	return openapi.Of(func(method, path string) bool { return served[method+" "+path] }, s.cfg.Version)
}

// showDescription answers with the description.
func (s *Server) showDescription(*http.Request) (answer.Reply, error) {
	return answer.OK(s.description), nil
}

// servePage answers with a file of the page.
func (s *Server) servePage(w http.ResponseWriter, r *http.Request) {
	if !s.page.Serve(w, r) {
		s.out.Fail(w, r, answer.UnknownRoute(r))
	}
}
