package network

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	// maxPause is the longest that a host's wish makes us wait at once: a clock
	// that is wrong, or a joke, must not park a host for a year.
	maxPause = time.Hour
	// maxDelta tells the two forms of RateLimit-Reset apart: below, it is a
	// number of seconds from now, above, a Unix time.
	maxDelta = 30 * 24 * 60 * 60
)

// quota is what a host says about its rate limit.
type quota struct {
	known     bool
	remaining int64
	reset     time.Duration // until the quota is full again, in 0..maxPause
}

// readQuota reads RateLimit-Remaining and RateLimit-Reset.
func readQuota(h http.Header, now time.Time) quota {
	remaining, err := strconv.ParseInt(strings.TrimSpace(h.Get("RateLimit-Remaining")), 10, 64)
	if err != nil || remaining < 0 {
		return quota{}
	}
	reset, ok := readReset(h, now)
	if !ok || reset <= 0 {
		return quota{} // it is full again already, or the host's clock is behind
	}
	return quota{known: true, remaining: remaining, reset: reset}
}

func readReset(h http.Header, now time.Time) (time.Duration, bool) {
	n, err := strconv.ParseInt(strings.TrimSpace(h.Get("RateLimit-Reset")), 10, 64)
	if err != nil || n < 0 {
		return 0, false
	}
	if n < maxDelta {
		return min(time.Duration(n)*time.Second, maxPause), true
	}
	if n > now.Add(maxPause).Unix() {
		return maxPause, true
	}
	return clampPause(time.Unix(n, 0), now), true
}

// readRetryAfter reads Retry-After, as seconds or as a date.
func readRetryAfter(h http.Header, now time.Time) (time.Duration, bool) {
	v := strings.TrimSpace(h.Get("Retry-After"))
	if v == "" {
		return 0, false
	}
	if n, err := strconv.ParseInt(v, 10, 64); err == nil {
		if n < 0 {
			return 0, false
		}
		return time.Duration(min(n, int64(maxPause/time.Second))) * time.Second, true
	}
	at, err := http.ParseTime(v)
	if err != nil {
		return 0, false
	}
	return clampPause(at, now), true
}

// clampPause is the time from now to at, in 0..maxPause.
func clampPause(at, now time.Time) time.Duration {
	if !at.After(now) {
		return 0
	}
	if at.After(now.Add(maxPause)) {
		return maxPause
	}
	return at.Sub(now)
}

// readPause is how long a host that refused us wants to be left alone: the
// longer of what its headers say. It is false when they say nothing of use.
func readPause(h http.Header, now time.Time) (time.Duration, bool) {
	after, okAfter := readRetryAfter(h, now)
	reset, okReset := readReset(h, now)
	if okReset && h.Get("RateLimit-Remaining") != "" && strings.TrimSpace(h.Get("RateLimit-Remaining")) != "0" {
		okReset = false // that quota is not the one that ran out
	}
	pause := time.Duration(0)
	if okAfter {
		pause = after
	}
	if okReset {
		pause = max(pause, reset)
	}
	return pause, pause > 0
}
