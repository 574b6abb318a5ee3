package sandbox

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/sandbox/encode"
)

const (
	hostsPage     = 200
	hostsPageMost = 1000
)

// relayListCollections says of how many repos the directory has seen records of
// the collections named by c. What it has never seen it leaves out. Without c the
// real one lists all, which nobody asks for here.
func (w *World) relayListCollections(q query) answer {
	b, n := append((*q.buf)[:0], `{"collections":{`...), 0
	for _, c := range q.values["c"] {
		count := w.directory.count(syntax.NSID(c))
		if count == 0 {
			continue
		}
		if n > 0 {
			b = append(b, ',')
		}
		b, n = append(encode.String(b, c), ':'), n+1
		b = strconv.AppendInt(b, int64(count), 10)
	}
	b = append(b, `},"cursor":""}`...)
	*q.buf = b
	return okJSON(b)
}

// relayListHosts lists the hosts that the relay reads from, with the accounts that
// it has seen on each. A page that is full has a cursor.
func (w *World) relayListHosts(q query) answer {
	limit, from := hostsPage, 0
	var err error
	if s := q.values.Get("limit"); s != "" {
		if limit, err = strconv.Atoi(s); err != nil || limit < 1 || limit > hostsPageMost {
			return failf(http.StatusBadRequest, "BadRequest", "limit parameter invalid: %s", s)
		}
	}
	if s := q.values.Get("cursor"); s != "" {
		if from, err = strconv.Atoi(s); err != nil || from < 0 {
			return failf(http.StatusBadRequest, "BadRequest", "limit parameter invalid cursor: %s", s)
		}
	}
	accounts := map[string]int{}
	for _, a := range w.accounts() {
		accounts[a.public().Host]++
	}
	b, end := append((*q.buf)[:0], `{"hosts":[`...), min(from+limit, len(w.hosts))
	for i := min(from, end); i < end; i++ {
		if i > from {
			b = append(b, ',')
		}
		url := w.hosts[i].url
		b = encode.String(append(b, `{"hostname":`...), strings.TrimPrefix(url, "http://"))
		b = strconv.AppendInt(append(b, `,"accountCount":`...), int64(accounts[url]), 10)
		b = append(b, `,"seq":1,"status":"active"}`...)
	}
	b = append(b, ']')
	if end-from == limit {
		b = append(strconv.AppendInt(append(b, `,"cursor":"`...), int64(end), 10), '"')
	}
	b = append(b, '}')
	*q.buf = b
	return okJSON(b)
}
