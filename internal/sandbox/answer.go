package sandbox

import (
	"net/http"
	"strconv"
)

const (
	contentJSON = "application/json; charset=utf-8"
	contentCAR  = "application/vnd.ipld.car"
	contentDID  = "application/did+ld+json; charset=utf-8"
	contentHTML = "text/html; charset=utf-8"
	contentText = "text/plain; charset=utf-8"
)

// answer is a whole answer. Endpoints compute one and never see the connection,
// so that a fault can do with it what it likes.
type answer struct {
	status      int
	contentType string
	header      http.Header // more headers; may be nil
	body        []byte
	chunked     bool // no Content-Length
	drop        bool // close the connection without an answer
}

// send writes the answer with the first n bytes of its body, and breaks the
// connection if that is not all.
func (a answer) send(w http.ResponseWriter, n int) {
	if a.drop {
		panic(http.ErrAbortHandler)
	}
	a.begin(w)
	if _, err := w.Write(a.body[:n]); err == nil && n == len(a.body) {
		return
	}
	// What was written has to reach the client before the connection goes.
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

// begin sends the answer's head.
func (a answer) begin(w http.ResponseWriter) {
	h := w.Header()
	for name, values := range a.header {
		h[http.CanonicalHeaderKey(name)] = values
	}
	if a.contentType != "" {
		h.Set("Content-Type", a.contentType)
	}
	if !a.chunked {
		h.Set("Content-Length", strconv.Itoa(len(a.body)))
	}
	w.WriteHeader(a.status)
}
