package reads

import (
	"context"
	"net/http"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/api"
	"appview/server/answer"
)

// dated has an answer about a collection say how old the index is there. The age is
// read before the answer is: what was indexed in between makes it younger.
func (rd *Reads) dated(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// What no collection is called is found nowhere, and refused by h.
		if c := r.URL.Query().Get("collection"); c != "" {
			at, err := rd.syncedAt(r.Context(), syntax.NSID(c).Normalize())
			if err != nil {
				rd.out.Fail(w, r, err)
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
func (rd *Reads) syncedAt(ctx context.Context, c syntax.NSID) (string, error) {
	version, err := rd.store.Index.Version(ctx)
	if err != nil {
		return "", err
	}
	if had, ok := rd.ages.get(version, string(c)); ok {
		return had.Tag, nil
	}
	f, err := rd.store.Collections.Freshness(ctx, c)
	if err != nil {
		return "", err
	}
	at := ""
	if !f.SyncedAt.IsZero() {
		at = api.Stamp(f.SyncedAt)
	}
	rd.ages.put(version, string(c), answer.Ready{Tag: at})
	return at, nil
}
