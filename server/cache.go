package server

import (
	"bytes"
	"net/http"
	"strings"
	"sync"
)

// Bounds of the cache.
const (
	cacheBytes = 32 << 20 // of keys and bodies
	cacheEntry = 1 << 20  // a longer answer is not kept
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
	entries map[string]cached
}

// cached is an answer, ready to be sent.
type cached struct {
	tag  string
	body []byte // of whoever has the answer: not to be changed
	zip  bool   // body is compressed
}

// get returns the answer that was kept under key, of the version given.
func (c *cache) get(version uint64, key string) (cached, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.version != version {
		return cached{}, false
	}
	e, ok := c.entries[key]
	return e, ok
}

// takes tells whether an answer is short enough to be kept.
func (c *cache) takes(key string, e cached) bool {
	return len(key)+len(e.body) <= min(cacheEntry, c.limit)
}

// put keeps an answer. When there is no room left, all others make way: what is
// asked for often is there again soon.
func (c *cache) put(version uint64, key string, e cached) {
	if !c.takes(key, e) {
		return
	}
	size := len(key) + len(e.body)
	c.mu.Lock()
	defer c.mu.Unlock()
	if version < c.version {
		return
	}
	if version > c.version || c.size+size > c.limit || c.entries == nil {
		c.version, c.size, c.entries = version, 0, map[string]cached{}
	}
	if _, had := c.entries[key]; had {
		return
	}
	c.entries[key] = e
	c.size += size
}

// answerKept answers with a page from the cache, or reads it and keeps it. Whoever has no
// key waits for the budget of answers.
func (s *Server) answerKept(e pageEndpoint) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		version, err := s.cfg.Store.Index.Version(r.Context())
		if err != nil {
			s.fail(w, r, err)
			return
		}
		as := keptAs{key: r.URL.Path + "?" + r.URL.RawQuery, version: version}
		if acceptsGzip(r) {
			as.key = "gzip " + as.key
		}
		had, ok := s.cache.get(version, as.key)
		room := roomFor(r)
		if ok {
			room = int64(len(had.body))
		}
		if err := s.admit(w, r, room); err != nil {
			s.fail(w, r, err)
			return
		}
		if !ok {
			s.sendPage(w, r, e, as)
			return
		}
		w.Header().Add("Vary", "Accept-Encoding")
		if tag := knownTag(r, strings.TrimSuffix(had.tag, gzipMark)); tag != "" {
			notModified(w, tag)
			return
		}
		writeJSON(w, http.StatusOK, had)
	})
}

// remember keeps an answer, unless the file has changed while it was read.
func (s *Server) remember(r *http.Request, as keptAs, a cached) {
	if !s.cache.takes(as.key, a) {
		return // before it is copied
	}
	if now, err := s.cfg.Store.Index.Version(r.Context()); err != nil || now != as.version {
		return
	}
	a.body = bytes.Clone(a.body)
	s.cache.put(as.version, as.key, a)
}
