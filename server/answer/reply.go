package answer

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

const (
	// minGzip is the shortest answer that is compressed: a shorter one fits into
	// one packet as it is.
	minGzip = 1400
	// gzipLevel takes a quarter of the time of the default level, and leaves the
	// answer a tenth longer.
	gzipLevel = gzip.BestSpeed
	// maxPooled is the largest buffer that is kept for the next answer.
	maxPooled = 1 << 20
	// GzipMark ends the tag of a compressed answer: a strong tag names bytes.
	GzipMark = "-gzip"
)

// Reply is what an endpoint answers with: a body that is encoded as JSON, or the
// JSON itself.
type Reply struct {
	Status   int
	Location string      // the path of a route, for the header; none if empty
	Tag      string      // ETag, without quotes; none if empty
	Body     any         // unless json is there
	JSON     *[]byte     // from Answers.Buffer
	Keep     func(Ready) // is given the answer before it is sent; nil: nobody keeps it
}

// Ready is an answer, ready to be sent.
type Ready struct {
	Tag  string
	Body []byte // of whoever has the answer: not to be changed
	zip  bool   // body is compressed
}

// OK is the reply with a body.
func OK(body any) Reply { return Reply{Status: http.StatusOK, Body: body} }

// Tagged is the reply that build makes, or none of it if the client has what the
// tag names.
func (a *Answers) Tagged(r *http.Request, tag string, build func([]byte) ([]byte, error)) (Reply, error) {
	if had := KnownTag(r, tag); had != "" {
		return Reply{Status: http.StatusNotModified, Tag: had}, nil
	}
	buf := a.Buffer()
	out, err := build((*buf)[:0])
	*buf = out
	return Reply{Status: http.StatusOK, Tag: tag, JSON: buf}, err
}

// KnownTag is the tag under which the client says that it has the answer, empty
// if it does not.
func KnownTag(r *http.Request, tag string) string {
	if tag == "" {
		return ""
	}
	for _, list := range r.Header["If-None-Match"] {
		for one := range strings.SplitSeq(list, ",") {
			one = strings.TrimSpace(one)
			if one == "*" {
				return tag
			}
			one = strings.Trim(strings.TrimPrefix(one, "W/"), `"`)
			if strings.TrimSuffix(one, GzipMark) == tag {
				return one
			}
		}
	}
	return ""
}

// Send writes a reply, compressed if the client takes that and it is worth it. It
// encodes first and writes then, so that what cannot be encoded can still be
// answered with an error.
func (a *Answers) Send(w http.ResponseWriter, r *http.Request, rep Reply) error {
	h := w.Header()
	h.Add("Vary", "Accept-Encoding")
	if rep.Location != "" {
		h.Set("Location", a.PathForClients(rep.Location))
	}
	switch rep.Status {
	case http.StatusNotModified:
		NotModified(w, rep.Tag)
		return nil
	case http.StatusNoContent:
		w.WriteHeader(rep.Status)
		return nil
	}
	body := rep.JSON
	if body == nil {
		body = a.Buffer()
		out := bytes.NewBuffer((*body)[:0])
		if err := Encode(out, rep.Body); err != nil {
			return err
		}
		*body = out.Bytes()
	}
	zip := len(*body) >= minGzip && AcceptsGzip(r)
	if zip {
		zipped := a.Buffer()
		out := bytes.NewBuffer((*zipped)[:0])
		err := a.zip(out, *body)
		*zipped = out.Bytes()
		a.Recycle(body) // before the client is waited for
		if body = zipped; err != nil {
			return err
		}
		if rep.Tag != "" {
			rep.Tag += GzipMark
		}
	}
	defer a.Recycle(body)
	done := Ready{Tag: rep.Tag, Body: *body, zip: zip}
	if rep.Keep != nil {
		rep.Keep(done)
	}
	ChargeFor(w, cap(*body))
	WriteJSON(w, rep.Status, done)
	return nil
}

// Encode writes the JSON of an answer.
func Encode(out *bytes.Buffer, body any) error {
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false) // records come out as their authors wrote them
	if err := enc.Encode(body); err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	return nil
}

// ChargeFor charges what an answer takes while it is written.
func ChargeFor(w http.ResponseWriter, bytes int) {
	if own, isOwn := w.(*Writer); isOwn {
		own.share.budget.charge(&own.share, int64(bytes))
	}
}

// WriteJSON writes an answer that is ready.
func WriteJSON(w http.ResponseWriter, status int, a Ready) {
	h := w.Header()
	if a.zip {
		h.Set("Content-Encoding", "gzip")
	}
	if a.Tag != "" {
		h.Set("ETag", `"`+a.Tag+`"`)
	}
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(a.Body)))
	w.WriteHeader(status)
	_, _ = w.Write(a.Body) // fails only if the client has gone
}

// NotModified answers whoever has what the tag names.
func NotModified(w http.ResponseWriter, tag string) {
	w.Header().Set("ETag", `"`+tag+`"`)
	w.WriteHeader(http.StatusNotModified)
}

// zip compresses data as a whole.
func (a *Answers) zip(out *bytes.Buffer, data []byte) error {
	z := a.Zipper()
	defer a.Zips.Put(z)
	z.Reset(out)
	if _, err := z.Write(data); err != nil {
		return fmt.Errorf("compress answer: %w", err)
	}
	if err := z.Close(); err != nil {
		return fmt.Errorf("compress answer: %w", err)
	}
	return nil
}

// Zipper is a compressor that is to be reset, and put back into a.zips.
func (a *Answers) Zipper() *gzip.Writer {
	if z, is := a.Zips.Get().(*gzip.Writer); is {
		return z
	}
	z, err := gzip.NewWriterLevel(nil, gzipLevel)
	if err != nil {
		panic(err) // there is no such level
	}
	return z
}

// Buffer is for an answer, which send gives back.
func (a *Answers) Buffer() *[]byte {
	if b, is := a.buffers.Get().(*[]byte); is {
		return b
	}
	return new([]byte)
}

// Recycle gives a buffer back.
func (a *Answers) Recycle(b *[]byte) {
	if cap(*b) <= maxPooled {
		a.buffers.Put(b)
	}
}

// AcceptsGzip reports whether the client takes compressed answers.
func AcceptsGzip(r *http.Request) bool {
	for _, list := range r.Header["Accept-Encoding"] {
		for one := range strings.SplitSeq(list, ",") {
			name, params, _ := strings.Cut(one, ";")
			if !strings.EqualFold(strings.TrimSpace(name), "gzip") {
				continue
			}
			weight, isWeight := strings.CutPrefix(strings.TrimSpace(params), "q=")
			q, err := strconv.ParseFloat(weight, 64)
			return !isWeight || err == nil && q > 0
		}
	}
	return false
}

// TagOf is a tag of what is given, and of the program's version, which keeps apart the
// ways to print it.
func (a *Answers) TagOf(data []byte) string {
	hash := sha256.Sum256(append(append(data, 0), a.version...))
	return base64.RawURLEncoding.EncodeToString(hash[:TagBytes])
}
