package sandbox

import (
	"net/http"
	"strconv"
	"sync"
	"time"
)

const (
	rateWindow = 5 * time.Minute
	// getRepoRate is how many times more getRepo a host allows than anything else.
	getRepoRate = 2
)

// rateLimit counts as the reference PDS does: fixed windows, one for getRepo and
// one for everything else. All clients of a sandbox are one client.
type rateLimit struct {
	limit int

	mu      sync.Mutex
	windows map[bool]*window // by whether it is for getRepo
}

type window struct {
	ends time.Time
	left int
}

// newRateLimit is nil if there is no limit.
func newRateLimit(limit int) *rateLimit {
	if limit == 0 {
		return nil
	}
	return &rateLimit{limit: limit, windows: make(map[bool]*window)}
}

// take counts one request and gives the headers of its answer.
func (l *rateLimit) take(method string, now time.Time) (http.Header, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	forRepo, limit := method == MethodGetRepo, l.limit
	if forRepo {
		limit *= getRepoRate
	}
	win := l.windows[forRepo]
	if win == nil || !now.Before(win.ends) {
		win = &window{ends: now.Add(rateWindow), left: limit}
		l.windows[forRepo] = win
	}
	allowed := win.left > 0
	win.left = max(0, win.left-1)
	header := http.Header{
		"Ratelimit-Limit":     {strconv.Itoa(limit)},
		"Ratelimit-Remaining": {strconv.Itoa(win.left)},
		"Ratelimit-Reset":     {strconv.FormatInt(win.ends.Unix()+1, 10)},
		"Ratelimit-Policy":    {strconv.Itoa(limit) + ";w=" + strconv.Itoa(int(rateWindow/time.Second))},
	}
	if !allowed {
		header.Set("Retry-After", strconv.Itoa(1+int(win.ends.Sub(now)/time.Second)))
	}
	return header, allowed
}
