package server

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/record"
	"appview/store/index"
)

// openReads are public reads of a list and of a record.
func openReads() []string {
	in := "repo=" + string(alice) + "&collection=" + string(note)
	return []string{
		"/api/records?collection=" + string(note), "/api/records?order=rkey&collection=" + string(note),
		"/api/records?did=" + string(alice), listRecords + "?" + in, getRecord + "?rkey=key0001&" + in,
	}
}

func TestAnswerThatTheClientHasIsNotSentAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.settle(alice, index.AccountActive, map[syntax.NSID][]index.Listed{note: texts(t, 60)})
	for range 2 { // from the store, and from the cache
		for _, path := range openReads() {
			first := r.get(path)
			tag := first.header.Get("ETag")
			if first.status != 200 || !strings.HasPrefix(tag, `"`) || first.header.Get("Cache-Control") != "no-cache" || first.header.Get("Vary") != "Accept-Encoding" {
				t.Errorf("%s: %d %v", path, first.status, first.header)
			}
			for _, sent := range []string{tag, "W/" + tag, `"other", ` + tag, "*"} {
				a := r.do(http.MethodGet, path, "", "If-None-Match", sent)
				if a.status != http.StatusNotModified || a.body != "" || a.header.Get("ETag") == "" || a.header.Get("Vary") != "Accept-Encoding" {
					t.Errorf("%s, %s: %d %v", path, sent, a.status, a.header)
				}
			}
			if a := r.do(http.MethodGet, path, "", "If-None-Match", `"other"`); a.status != 200 || a.body != first.body {
				t.Errorf("%s: another tag is answered with %d", path, a.status)
			}
		}
	}
	if a := r.get("/admin/records?collection=" + string(note)); a.header.Get("ETag") != "" || a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("admin: %v", a.header)
	}
}

func TestTagsChangeWithTheAnswer(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := text(t, "x", "x").Body.CID
	settle := func(value string, src index.Source) {
		odd := index.Listed{RKey: "key0001", Source: src, Body: record.Body{CID: id, Data: []byte(value)}}
		r.settle(alice, index.AccountActive, map[syntax.NSID][]index.Listed{note: {odd}})
	}
	settle(`{"f":1.0}`, index.SourceListRecords)
	before := map[string]result{}
	for _, path := range openReads() {
		before[path] = r.get(path)
	}
	settle(`{"f":1.00}`, index.SourceProof) // the same CID, from a better source
	for path, old := range before {
		a := r.do(http.MethodGet, path, "", "If-None-Match", old.header.Get("ETag"))
		if a.status != 200 || a.header.Get("ETag") == old.header.Get("ETag") || !strings.Contains(a.body, "1.00") {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	r.settle(alice, index.AccountDeactivated, nil)
	for path, old := range before {
		if a := r.do(http.MethodGet, path, "", "If-None-Match", old.header.Get("ETag")); a.status == http.StatusNotModified || strings.Contains(a.body, "at://") {
			t.Errorf("%s of an account that is gone: %d %s", path, a.status, a.body)
		}
	}
}

func TestRecordIsTaggedWithItsCID(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	rec := text(t, "key0001", "x")
	r.settle(alice, index.AccountActive, map[syntax.NSID][]index.Listed{note: {rec}})
	if got := r.get(openReads()[4]).header.Get("ETag"); got != `"`+rec.Body.CID.String()+`"` {
		t.Errorf("ETag %s", got)
	}
}

func TestAnswersAreCompressedForThoseWhoTakeIt(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	large := texts(t, 60)
	large[58] = text(t, "key0001", strings.Repeat("so long a text ", 200))
	r.settle(alice, index.AccountActive, map[syntax.NSID][]index.Listed{note: large})
	paths := append(openReads(), "/admin/records?collection="+string(note), "/admin/records/export")
	for _, path := range append(paths, paths...) {
		plain := r.do(http.MethodGet, path, "", "Accept-Encoding", "gzip;q=0, br")
		if plain.header.Get("Content-Encoding") != "" {
			t.Errorf("%s: compressed for a client that refuses it", path)
		}
		zipped := r.do(http.MethodGet, path, "", "Accept-Encoding", "deflate, GZIP;q=0.5")
		if zipped.header.Get("Content-Encoding") != "gzip" || len(zipped.body) > len(plain.body)/2 || zipped.header.Get("Vary") != "Accept-Encoding" {
			t.Errorf("%s: %d bytes of %d, %v", path, len(zipped.body), len(plain.body), zipped.header)
			continue
		}
		if got := unzip(t, zipped.body); got != plain.body {
			t.Errorf("%s: %q is not %q", path, got, plain.body)
		}
		tag := zipped.header.Get("ETag")
		if tag != "" && tag == plain.header.Get("ETag") {
			t.Errorf("%s: one strong tag for two sequences of bytes", path)
		}
		if a := r.do(http.MethodGet, path, "", "Accept-Encoding", "gzip", "If-None-Match", tag); tag != "" && (a.status != 304 || a.header.Get("ETag") != tag) {
			t.Errorf("%s: %d %v", path, a.status, a.header)
		}
	}
	if a := r.do(http.MethodGet, "/api/records?collection=a.b.unknown", "", "Accept-Encoding", "gzip"); a.header.Get("Content-Encoding") != "" {
		t.Error("a tiny answer is compressed")
	}
}

func unzip(t *testing.T, data string) string {
	t.Helper()
	z, err := gzip.NewReader(strings.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if _, err := io.Copy(&out, z); err != nil { //nolint:gosec // it is a test's own answer
		t.Fatal(err)
	}
	return out.String()
}
