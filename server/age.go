package server

import (
	"context"
	"net/http"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/api"
	"appview/store/jobs"
)

func (s *Server) age(f jobs.Freshness) api.Age {
	is := !f.SyncedAt.IsZero()
	return api.Age{
		SyncedAt:   api.Known(api.Stamp(f.SyncedAt), is),
		AgeSeconds: api.Known(int64(max(s.cfg.Now().Sub(f.SyncedAt), 0)/time.Second), is),
	}
}

// dated has an answer about a collection say how old the index is there. The age is
// read before the answer is: what was indexed in between makes it younger.
func (s *Server) dated(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// What no collection is called is found nowhere, and refused by h.
		if c := r.URL.Query().Get("collection"); c != "" {
			at, err := s.syncedAt(r.Context(), syntax.NSID(c).Normalize())
			if err != nil {
				s.fail(w, r, err)
				return
			}
			if at != "" {
				w.Header().Set(api.SyncedAt, at)
			}
		}
		h.ServeHTTP(w, r)
	})
}

// agesBytes bounds the collections whose age is remembered.
const agesBytes = 1 << 20

// syncedAt is the header's value, empty if there is none. It is remembered as long as
// nothing is written: an answer from the cache should not cost more than before.
func (s *Server) syncedAt(ctx context.Context, c syntax.NSID) (string, error) {
	version, err := s.cfg.Store.Index.Version(ctx)
	if err != nil {
		return "", err
	}
	if had, ok := s.ages.get(version, string(c)); ok {
		return had.tag, nil
	}
	f, err := s.cfg.Store.Collections.Freshness(ctx, c)
	if err != nil {
		return "", err
	}
	at := ""
	if !f.SyncedAt.IsZero() {
		at = api.Stamp(f.SyncedAt)
	}
	s.ages.put(version, string(c), cached{tag: at})
	return at, nil
}
