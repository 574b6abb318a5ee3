package server

import (
	"net/http"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/api"
)

func (s *Server) stats(r *http.Request) (reply, error) {
	if _, err := query(r); err != nil {
		return reply{}, err
	}
	st, err := s.cfg.Store.Stats(r.Context())
	if err != nil {
		return reply{}, err
	}
	tracked, err := s.cfg.Store.Collections.Tracked(r.Context())
	if err != nil {
		return reply{}, err
	}
	body := api.Stats{
		Collections: make(map[syntax.NSID]api.CollectionStats, len(st.Collections)),
		Repos:       st.Repos,
		Seq:         st.Seq,
		Database:    api.DatabaseStats{FileBytes: st.FileBytes, FreeBytes: st.FreeBytes},
		Tracked:     append([]syntax.NSID{}, tracked...), // none is [], not null
		DiskFull:    s.cfg.Store.DiskFull(),
		Version:     s.cfg.Version,
	}
	for c, n := range st.Collections {
		body.Collections[c] = api.CollectionStats{Records: n.Records, Repos: n.Repos, Age: s.age(st.Fresh[c])}
	}
	return ok(body), nil
}
