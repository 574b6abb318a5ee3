package server

import (
	"bytes"
	"compress/gzip"
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
	// gzipMark ends the tag of a compressed answer: a strong tag names bytes.
	gzipMark = "-gzip"
)

// reply is what an endpoint answers with: a body that is encoded as JSON, or the
// JSON itself.
type reply struct {
	status   int
	location string  // the path of a route, for the header; none if empty
	tag      string  // ETag, without quotes; none if empty
	body     any     // unless json is there
	json     *[]byte // from Server.buffer
	kept     keptAs  // in the cache, if it has a key
}

// keptAs is where an answer is kept.
type keptAs struct {
	key     string
	version uint64 // of the file, before the answer was read from it
}

func ok(body any) reply { return reply{status: http.StatusOK, body: body} }

// tagged is the reply that build makes, or none of it if the client has what the
// tag names.
func (s *Server) tagged(r *http.Request, tag string, build func([]byte) ([]byte, error)) (reply, error) {
	if had := knownTag(r, tag); had != "" {
		return reply{status: http.StatusNotModified, tag: had}, nil
	}
	buf := s.buffer()
	out, err := build((*buf)[:0])
	*buf = out
	return reply{status: http.StatusOK, tag: tag, json: buf}, err
}

// knownTag is the tag under which the client says that it has the answer, empty
// if it does not.
func knownTag(r *http.Request, tag string) string {
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
			if strings.TrimSuffix(one, gzipMark) == tag {
				return one
			}
		}
	}
	return ""
}

// send writes a reply, compressed if the client takes that and it is worth it. It
// encodes first and writes then, so that what cannot be encoded can still be
// answered with an error.
func (s *Server) send(w http.ResponseWriter, r *http.Request, rep reply) error {
	h := w.Header()
	h.Add("Vary", "Accept-Encoding")
	if rep.location != "" {
		h.Set("Location", s.pathForClients(rep.location))
	}
	switch rep.status {
	case http.StatusNotModified:
		notModified(w, rep.tag)
		return nil
	case http.StatusNoContent:
		w.WriteHeader(rep.status)
		return nil
	}
	body := rep.json
	if body == nil {
		body = s.buffer()
		out := bytes.NewBuffer((*body)[:0])
		if err := encode(out, rep.body); err != nil {
			return err
		}
		*body = out.Bytes()
	}
	zip := len(*body) >= minGzip && acceptsGzip(r)
	if zip {
		zipped := s.buffer()
		out := bytes.NewBuffer((*zipped)[:0])
		err := s.zip(out, *body)
		*zipped = out.Bytes()
		s.keep(body) // before the client is waited for
		if body = zipped; err != nil {
			return err
		}
		if rep.tag != "" {
			rep.tag += gzipMark
		}
	}
	defer s.keep(body)
	if rep.kept.key != "" {
		s.remember(r, rep.kept, cached{tag: rep.tag, body: *body, zip: zip})
	}
	chargeFor(w, cap(*body))
	writeJSON(w, rep.status, cached{tag: rep.tag, body: *body, zip: zip})
	return nil
}

// encode writes the JSON of an answer.
func encode(out *bytes.Buffer, body any) error {
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false) // records come out as their authors wrote them
	if err := enc.Encode(body); err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	return nil
}

// chargeFor charges what an answer takes while it is written.
func chargeFor(w http.ResponseWriter, bytes int) {
	if own, isOwn := w.(*writer); isOwn {
		own.share.budget.charge(&own.share, int64(bytes))
	}
}

// writeJSON writes an answer that is ready.
func writeJSON(w http.ResponseWriter, status int, a cached) {
	h := w.Header()
	if a.zip {
		h.Set("Content-Encoding", "gzip")
	}
	if a.tag != "" {
		h.Set("ETag", `"`+a.tag+`"`)
	}
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(a.body)))
	w.WriteHeader(status)
	_, _ = w.Write(a.body) // fails only if the client has gone
}

func notModified(w http.ResponseWriter, tag string) {
	w.Header().Set("ETag", `"`+tag+`"`)
	w.WriteHeader(http.StatusNotModified)
}

// zip compresses data as a whole.
func (s *Server) zip(out *bytes.Buffer, data []byte) error {
	z := s.zipper()
	defer s.zips.Put(z)
	z.Reset(out)
	if _, err := z.Write(data); err != nil {
		return fmt.Errorf("compress answer: %w", err)
	}
	if err := z.Close(); err != nil {
		return fmt.Errorf("compress answer: %w", err)
	}
	return nil
}

// zipper is a compressor that is to be reset, and put back into s.zips.
func (s *Server) zipper() *gzip.Writer {
	if z, is := s.zips.Get().(*gzip.Writer); is {
		return z
	}
	z, err := gzip.NewWriterLevel(nil, gzipLevel)
	if err != nil {
		panic(err) // there is no such level
	}
	return z
}

// buffer is for an answer, which send gives back.
func (s *Server) buffer() *[]byte {
	if b, is := s.buffers.Get().(*[]byte); is {
		return b
	}
	return new([]byte)
}

func (s *Server) keep(b *[]byte) {
	if cap(*b) <= maxPooled {
		s.buffers.Put(b)
	}
}

// acceptsGzip tells whether the client takes compressed answers.
func acceptsGzip(r *http.Request) bool {
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
