package polite

import (
	"net/http"
	"strconv"
	"testing"
	"time"
)

func head(pairs ...string) http.Header {
	h := http.Header{}
	for i := 0; i+1 < len(pairs); i += 2 {
		h.Set(pairs[i], pairs[i+1])
	}
	return h
}

func TestReadPause(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	unix := func(d time.Duration) string { return strconv.FormatInt(now.Add(d).Unix(), 10) }
	for _, c := range []struct {
		header http.Header
		want   time.Duration
	}{
		{head(), 0},
		{head("Retry-After", "17"), 17 * time.Second},
		{head("Retry-After", " 17 "), 17 * time.Second},
		{head("Retry-After", "0"), 0},
		{head("Retry-After", "-5"), 0},
		{head("Retry-After", "soon"), 0},
		{head("Retry-After", "99999999999999999999"), farAway},
		{head("Retry-After", "1000000000000"), farAway},
		{head("Retry-After", "7200"), 2 * time.Hour},
		{head("Retry-After", now.Add(20*time.Second).Format(http.TimeFormat)), 20 * time.Second},
		{head("Retry-After", now.Add(-time.Hour).Format(http.TimeFormat)), 0},
		{head("Retry-After", now.Add(1000*time.Hour).Format(http.TimeFormat)), 1000 * time.Hour},
		{head("Retry-After", "Fri, 31 Dec 9999 23:59:59 GMT"), farAway},
		{head("Retry-After", now.Add(5*time.Hour).Format(http.TimeFormat), "Date", now.Add(5*time.Hour-time.Minute).Format(http.TimeFormat)), time.Minute},
		{head("RateLimit-Reset", unix(90*time.Second)), 90 * time.Second},
		{head("RateLimit-Reset", unix(-90*time.Second)), 0},
		{head("RateLimit-Reset", unix(90*time.Second)+"250"), 90 * time.Second}, // milliseconds
		{head("RateLimit-Reset", unix(90*time.Hour)), 90 * time.Hour},
		{head("RateLimit-Reset", "9223372036854775807"), farAway},
		{head("RateLimit-Reset", "9223372036854775807", "Date", "Mon, 01 Jan 0001 00:00:00 GMT"), farAway},
		{head("RateLimit-Reset", "3000000", "Date", "Fri, 31 Dec 9999 23:59:59 GMT"), 0},
		{head("RateLimit-Reset", unix(-time.Hour), "Date", now.Add(-time.Hour-time.Minute).Format(http.TimeFormat)), time.Minute},
		{head("RateLimit-Reset", unix(time.Hour), "Date", "yesterday"), time.Hour},
		{head("RateLimit-Reset", "45"), 45 * time.Second},
		{head("RateLimit-Reset", "-45"), 0},
		{head("RateLimit-Reset", "45", "RateLimit-Remaining", "0"), 45 * time.Second},
		{head("RateLimit-Reset", "45", "RateLimit-Remaining", "7"), 0},
		{head("RateLimit-Reset", "45", "Retry-After", "3"), 45 * time.Second},
		{head("RateLimit-Reset", "3", "Retry-After", "45"), 45 * time.Second},
	} {
		if got := readPause(c.header, now); got != c.want {
			t.Errorf("%v: got %s, want %s", c.header, got, c.want)
		}
	}
}

func TestReadQuota(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct {
		header http.Header
		want   quota
	}{
		{head(), quota{}},
		{head("RateLimit-Remaining", "5"), quota{}},
		{head("RateLimit-Reset", "5"), quota{}},
		{head("RateLimit-Remaining", "x", "RateLimit-Reset", "5"), quota{}},
		{head("RateLimit-Remaining", "-1", "RateLimit-Reset", "5"), quota{}},
		{head("RateLimit-Remaining", "5", "RateLimit-Reset", "0"), quota{}},
		{head("RateLimit-Remaining", "5", "RateLimit-Reset", strconv.FormatInt(now.Unix()-10, 10)), quota{}},
		{head("RateLimit-Remaining", "5", "RateLimit-Reset", "10"), quota{true, 5, 10 * time.Second}},
		{head("RateLimit-Remaining", "0", "RateLimit-Reset", strconv.FormatInt(now.Unix()+10, 10)), quota{true, 0, 10 * time.Second}},
		{head("RateLimit-Remaining", "5", "RateLimit-Reset", "9223372036854775807"), quota{true, 5, time.Hour}},
		{head("RateLimit-Remaining", "5", "RateLimit-Policy", "3000;w=300"), quota{true, 5, 5 * time.Minute}},
		{head("RateLimit-Remaining", "5", "RateLimit-Reset", "10", "RateLimit-Policy", "3000;w=300"), quota{true, 5, 10 * time.Second}},
		{head("RateLimit-Policy", "3000;w=300"), quota{true, 3000, 5 * time.Minute}},
		{head("RateLimit-Policy", " 3000 ; w=300, 100;w=60;burst=7 "), quota{true, 100, time.Minute}},
		{head("RateLimit-Policy", `"default";q=50;w=10`), quota{true, 50, 10 * time.Second}},
		{head("RateLimit-Policy", `"default";w=10`, "RateLimit-Limit", "70"), quota{true, 70, 10 * time.Second}},
		{head("RateLimit-Policy", "0;w=300"), quota{}},
		{head("RateLimit-Policy", "3000;w=0"), quota{}},
		{head("RateLimit-Policy", "3000;w=99999999999999999999"), quota{}},
		{head("RateLimit-Policy", "3000"), quota{}},
		{head("RateLimit-Policy", ";;;=,,w=1;q"), quota{}},
		{head("RateLimit-Limit", "3000"), quota{}},
	} {
		if got := readQuota(c.header, now); got != c.want {
			t.Errorf("%v: got %+v, want %+v", c.header, got, c.want)
		}
	}
}

// FuzzPacing reads anything as what a host says of its limits.
func FuzzPacing(f *testing.F) {
	f.Add("0", "60", "3000;w=300", "3000", "17", "")
	f.Add("5", "1800000000", `"a";q=1;w=2, 7;w=3`, "", "Fri, 31 Dec 9999 23:59:59 GMT", "Mon, 01 Jan 0001 00:00:00 GMT")
	f.Add("-1", "99999999999999999999", ";;w=", "x", "1e9", "x")
	now := time.Unix(1_800_000_000, 0)
	f.Fuzz(func(t *testing.T, remaining, reset, policy, limit, after, date string) {
		h := http.Header{}
		for name, value := range map[string]string{
			"Ratelimit-Remaining": remaining, "Ratelimit-Reset": reset, "Ratelimit-Policy": policy, "Ratelimit-Limit": limit, "Retry-After": after, "Date": date,
		} {
			if value != "" {
				h[name] = []string{value}
			}
		}
		if q := readQuota(h, now); q.known && (q.remaining < 0 || q.reset <= 0 || q.reset > maxPause) {
			t.Fatalf("%v: %+v", h, q)
		}
		if pause := readPause(h, now); pause < 0 || pause > farAway {
			t.Fatalf("%v: %s", h, pause)
		}
	})
}
