package reads

import (
	"bytes"
	"net/http"
	"strings"
	"sync"

	"appview/server/answer"
)

// Bounds of the cache.
const (
	CacheBytes = 32 << 20    // of keys and bodies
	cacheEntry = answer.Room // a longer answer is not kept
)

// cache keeps answers to public reads for as long as nothing is written to the
// store: an app's front page is asked for over and over. An answer is found only
// under the version of the file that it was read from, so that nothing stale is
// ever given, and nothing is kept of an older version.
type cache struct {
	limit int // bytes

	mu      sync.Mutex
	version uint64
	size    int
	entries map[string]answer.Ready
}

// get returns the answer that was kept under key, of the version given.
func (c *cache) get(version uint64, key string) (answer.Ready, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.version != version {
		return answer.Ready{}, false
	}
	e, ok := c.entries[key]
	return e, ok
}

// takes reports whether an answer is short enough to be kept.
func (c *cache) takes(key string, e answer.Ready) bool {
	return len(key)+len(e.Body) <= min(cacheEntry, c.limit)
}

// put keeps an answer. When there is no room left, all others make way: what is
// asked for often is there again soon.
func (c *cache) put(version uint64, key string, e answer.Ready) {
	if !c.takes(key, e) {
		return
	}
	size := len(key) + len(e.Body)
	c.mu.Lock()
	defer c.mu.Unlock()
	if version < c.version {
		return
	}
	if version > c.version || c.size+size > c.limit || c.entries == nil {
		c.version, c.size, c.entries = version, 0, map[string]answer.Ready{}
	}
	if _, had := c.entries[key]; had {
		return
	}
	c.entries[key] = e
	c.size += size
}

// keptAs is where an answer is kept.
type keptAs struct {
	key     string
	version uint64 // of the file, before the answer was read from it
}

// answerKept answers with a page from the cache, or reads it and keeps it. Whoever has no
// key waits for the budget of answers.
func (rd *Reads) answerKept(e pageEndpoint) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		version, err := rd.store.Index.Version(r.Context())
		if err != nil {
			rd.out.Fail(w, r, err)
			return
		}
		as := keptAs{key: r.URL.Path + "?" + r.URL.RawQuery, version: version}
		if answer.AcceptsGzip(r) {
			as.key = "gzip " + as.key
		}
		had, ok := rd.cache.get(version, as.key)
		room := roomFor(r)
		if ok {
			room = int64(len(had.Body))
		}
		if err := rd.out.Admit(w, r, room); err != nil {
			rd.out.Fail(w, r, err)
			return
		}
		if !ok {
			rd.sendPage(w, r, e, as)
			return
		}
		w.Header().Add("Vary", "Accept-Encoding")
		if tag := answer.KnownTag(r, strings.TrimSuffix(had.Tag, answer.GzipMark)); tag != "" {
			answer.NotModified(w, tag)
			return
		}
		answer.WriteJSON(w, http.StatusOK, had)
	})
}

// remember keeps an answer, unless the file has changed while it was read.
func (rd *Reads) remember(r *http.Request, as keptAs, a answer.Ready) {
	if !rd.cache.takes(as.key, a) {
		return // before it is copied
	}
	if now, err := rd.store.Index.Version(r.Context()); err != nil || now != as.version {
		return
	}
	a.Body = bytes.Clone(a.Body)
	rd.cache.put(as.version, as.key, a)
}
