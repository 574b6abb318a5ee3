package polite

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	// maxPause is the longest pause at once that a host may ask for: a clock
	// that is wrong, or a joke, must not park a host for a year.
	maxPause = time.Hour
	// maxDelta tells the two forms of RateLimit-Reset apart: below, it is a
	// number of seconds from now, above, a Unix time.
	maxDelta = 30 * 24 * 60 * 60
	// minMillis tells Unix times in milliseconds, which some hosts give, from those in
	// seconds: it is in the year 5138, or in 1973.
	minMillis = 100_000_000_000
	// maxUnix is the last second of the year 9999.
	maxUnix = 253_402_300_799
	// farAway is what everything further away is read as.
	farAway = 1000 * 24 * time.Hour
)

// quota is what a host says about its rate limit.
type quota struct {
	known     bool
	remaining int64
	reset     time.Duration // until the quota is full again, in 0..maxPause
}

// readQuota reads RateLimit-Remaining and RateLimit-Reset, and RateLimit-Policy
// and RateLimit-Limit for what these do not say.
func readQuota(h http.Header, now time.Time) quota {
	limit, window, policy := readPolicy(h)
	remaining, err := strconv.ParseInt(strings.TrimSpace(h.Get("RateLimit-Remaining")), 10, 64)
	if err != nil || remaining < 0 {
		if !policy {
			return quota{}
		}
		return quota{known: true, remaining: limit, reset: window}
	}
	reset, ok := readReset(h, now)
	switch {
	case !ok && policy:
		reset = window // full again by then at the latest
	case !ok || reset <= 0:
		return quota{} // it is full again already, or the host's clock is behind
	}
	return quota{known: true, remaining: remaining, reset: min(reset, maxPause)}
}

// readPolicy reads how many requests are allowed in how long, as in "3000;w=300";
// of several policies the one that allows the least.
func readPolicy(h http.Header) (limit int64, window time.Duration, ok bool) {
	for policy := range strings.SplitSeq(strings.Join(h.Values("RateLimit-Policy"), ","), ",") {
		parts := strings.Split(policy, ";")
		n, err := strconv.ParseInt(strings.TrimSpace(parts[0]), 10, 64)
		if err != nil { // a name: the number is a parameter, or RateLimit-Limit
			n, _ = strconv.ParseInt(strings.TrimSpace(h.Get("RateLimit-Limit")), 10, 64)
		}
		seconds := int64(0)
		for _, part := range parts[1:] {
			name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
			v, err := strconv.ParseInt(value, 10, 64)
			switch {
			case err != nil:
			case name == "q":
				n = v
			case name == "w":
				seconds = v
			}
		}
		if n <= 0 || seconds <= 0 || seconds > int64(maxPause/time.Second) {
			continue
		}
		w := time.Duration(seconds) * time.Second
		if !ok || float64(n)/w.Seconds() < float64(limit)/window.Seconds() {
			limit, window, ok = n, w, true
		}
	}
	return limit, window, ok
}

// readReset reads RateLimit-Reset, as seconds or as a Unix time by the host's own
// clock. It is negative for a time that is over.
func readReset(h http.Header, now time.Time) (time.Duration, bool) {
	n, ok := readNumber(h.Get("RateLimit-Reset"))
	if !ok {
		return 0, false
	}
	if n < maxDelta {
		return time.Duration(n) * time.Second, true
	}
	if n >= minMillis {
		n /= 1000
	}
	// From a clock of the year 1 to one of the year 9999 there are more seconds than a
	// time.Duration holds, and more than are left above the largest number.
	ahead := min(n, maxUnix) - hostNow(h, now).Unix()
	return time.Duration(min(max(ahead, -1), int64(farAway/time.Second))) * time.Second, true
}

// readRetryAfter reads Retry-After, as seconds or as a date by the host's own clock.
func readRetryAfter(h http.Header, now time.Time) (time.Duration, bool) {
	v := strings.TrimSpace(h.Get("Retry-After"))
	if n, ok := readNumber(v); ok {
		return time.Duration(min(n, int64(farAway/time.Second))) * time.Second, true
	}
	at, err := http.ParseTime(v)
	if err != nil {
		return 0, false
	}
	return min(at.Sub(hostNow(h, now)), farAway), true
}

// readNumber reads a number that is not negative; one that is too large for us is
// the largest.
func readNumber(s string) (int64, bool) {
	n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) || n < 0 {
		return 0, false
	}
	return n, true
}

// hostNow is the time at the host, as its Date says, or else ours: what it says
// of a moment is meant by its own clock, and many are wrong.
func hostNow(h http.Header, now time.Time) time.Time {
	if date, err := http.ParseTime(h.Get("Date")); err == nil {
		return date
	}
	return now
}

// readPause is how long a host that refused us wants to be left alone: the
// longer of what its headers say, which may be more than maxPause. It is zero
// when they say nothing of use.
func readPause(h http.Header, now time.Time) time.Duration {
	after, okAfter := readRetryAfter(h, now)
	reset, okReset := readReset(h, now)
	if okReset && h.Get("RateLimit-Remaining") != "" && strings.TrimSpace(h.Get("RateLimit-Remaining")) != "0" {
		okReset = false // that quota is not the one that ran out
	}
	pause := time.Duration(0)
	if okAfter {
		pause = max(pause, after)
	}
	if okReset {
		pause = max(pause, reset)
	}
	return pause
}
