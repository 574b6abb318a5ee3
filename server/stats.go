package server

import (
	"net/http"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

// statsBody is what the index holds.
type statsBody struct {
	Collections map[syntax.NSID]collectionStats `json:"collections"`
	Repos       int64                           `json:"repos"`
	Seq         uint64                          `json:"seq"`
	Database    databaseStats                   `json:"database"`
	Tracked     []syntax.NSID                   `json:"tracked_collections"`
	DiskFull    bool                            `json:"disk_full"`
	Version     string                          `json:"version"`
}

type collectionStats struct {
	Records int64 `json:"records"`
	Repos   int64 `json:"repos"`
	ageBody
}

type databaseStats struct {
	FileBytes int64 `json:"file_bytes"`
	FreeBytes int64 `json:"free_bytes"`
}

func (s *Server) stats(r *http.Request) (reply, error) {
	if _, err := query(r); err != nil {
		return reply{}, err
	}
	st, err := s.cfg.Store.Stats(r.Context())
	if err != nil {
		return reply{}, err
	}
	tracked, err := s.cfg.Store.Tracked(r.Context())
	if err != nil {
		return reply{}, err
	}
	body := statsBody{
		Collections: make(map[syntax.NSID]collectionStats, len(st.Collections)),
		Repos:       st.Repos,
		Seq:         st.Seq,
		Database:    databaseStats{FileBytes: st.FileBytes, FreeBytes: st.FreeBytes},
		Tracked:     append([]syntax.NSID{}, tracked...), // none is [], not null
		DiskFull:    s.cfg.Store.DiskFull(),
		Version:     s.cfg.Version,
	}
	for c, n := range st.Collections {
		body.Collections[c] = collectionStats{Records: n.Records, Repos: n.Repos, ageBody: s.age(st.Fresh[c])}
	}
	return ok(body), nil
}
