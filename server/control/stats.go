package control

import (
	"net/http"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/api"
	"appview/server/answer"
)

func (ctl *Control) stats(r *http.Request) (answer.Reply, error) {
	if _, err := answer.Query(r); err != nil {
		return answer.Reply{}, err
	}
	st, err := ctl.cfg.Store.Stats(r.Context())
	if err != nil {
		return answer.Reply{}, err
	}
	tracked, err := ctl.cfg.Store.Collections.Tracked(r.Context())
	if err != nil {
		return answer.Reply{}, err
	}
	body := api.Stats{
		Collections: make(map[syntax.NSID]api.CollectionStats, len(st.Collections)),
		Repos:       st.Repos,
		Seq:         st.Seq,
		Database:    api.DatabaseStats{FileBytes: st.FileBytes, FreeBytes: st.FreeBytes},
		Tracked:     append([]syntax.NSID{}, tracked...), // none is [], not null
		DiskFull:    ctl.cfg.Store.DiskFull(),
		Version:     ctl.cfg.Version,
	}
	for c, n := range st.Collections {
		body.Collections[c] = api.CollectionStats{Records: n.Records, Repos: n.Repos, Age: ageOf(st.Fresh[c], ctl.cfg.Now())}
	}
	return answer.OK(body), nil
}
