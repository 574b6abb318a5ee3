package reads

import (
	"appview/internal/api"
	"appview/server/answer"
	"appview/store"
)

// Reads answers reads of records: those of anybody, and those of administrators.
type Reads struct {
	store *store.Store
	out   *answer.Answers
	cache cache
	ages  cache // of collections: what the header api.SyncedAt says
}

// New answers reads from the store.
func New(st *store.Store, out *answer.Answers) *Reads {
	return &Reads{
		store: st, out: out, cache: cache{limit: CacheBytes}, ages: cache{limit: agesBytes},
	}
}

// Admin is the routes that need a key.
func (rd *Reads) Admin() []answer.Route {
	return []answer.Route{
		answer.Get("/admin/records", api.RecordsRead, rd.dated(rd.answerPage(rd.listRecords(answer.Query, maxAdminPage)))),
		answer.Get("/admin/records/export", api.RecordsRead, answer.Unhurried(rd.dated(rd.out.Stream(rd.exportRecords)))),
	}
}

// Public is the routes that need none.
func (rd *Reads) Public() []answer.Route {
	return []answer.Route{
		answer.Get("/api/records", "", rd.dated(rd.answerKept(rd.listRecords(answer.PublicQuery, maxPublicPage)))),
		answer.Get("/xrpc/com.atproto.repo.getRecord", "", rd.dated(rd.out.Admitted(rd.out.Answer(rd.xrpcGetRecord)))),
		answer.Get("/xrpc/com.atproto.repo.listRecords", "", rd.dated(rd.answerKept(rd.xrpcListRecords))),
	}
}

// SetCache empties the cache, and bounds it by another number of bytes.
func (rd *Reads) SetCache(bytes int) { rd.cache = cache{limit: bytes} }
