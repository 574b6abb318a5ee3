// Package web is the page at /. It is plain HTML, CSS and JavaScript modules: nothing
// builds it, and nothing of it comes from elsewhere.
package web

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"time"
)

//go:embed *.html *.css *.js *.svg
var files embed.FS

// Space is where the files of the page are.
const Space = "/web/"

// tagBytes is how much of a hash is a tag.
const tagBytes = 15

// Policy lets the page load its own files, talk to its own server, and nothing
// else. What it shows was written by strangers: no text can become markup, since
// scripts, styles and markup come from files alone. The one script within the page is
// named by its hash.
const Policy = "default-src 'none'; script-src 'self' 'sha256-Y0XQXim+tYaQcAlmS1dYZNrXaA35dbh2JJjuetb29NM='; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// Page is the page, ready to be served.
type Page struct{ files map[string]file }

// file is a file of the page.
type file struct {
	name string
	data []byte
	tag  string
}

// New reads the files of the page.
func New() (*Page, error) {
	p := &Page{files: map[string]file{}}
	entries, err := files.ReadDir(".")
	if err != nil {
		return nil, fmt.Errorf("read the page's files: %w", err)
	}
	for _, entry := range entries {
		data, err := files.ReadFile(entry.Name())
		if err != nil {
			return nil, fmt.Errorf("read the page's files: %w", err)
		}
		hash := sha256.Sum256(data)
		path := Space + entry.Name()
		if entry.Name() == "index.html" {
			path = "/" // alone: its addresses are relative to there
		}
		p.files[path] = file{name: entry.Name(), data: data, tag: `"` + base64.RawURLEncoding.EncodeToString(hash[:tagBytes]) + `"`}
	}
	return p, nil
}

// Serve answers with a file of the page, if there is one. Browsers keep it, and ask each
// time whether it is still the same.
func (p *Page) Serve(w http.ResponseWriter, r *http.Request) (found bool) {
	f, is := p.files[r.URL.Path]
	if !is {
		return false
	}
	h := w.Header()
	h.Set("Cache-Control", "no-cache")
	h.Set("Content-Security-Policy", Policy)
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("ETag", f.tag)
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Frame-Options", "DENY")
	if kind := kindOfFile(f.name); kind != "" { // the system's own table may say anything
		h.Set("Content-Type", kind)
	}
	http.ServeContent(w, r, f.name, time.Time{}, bytes.NewReader(f.data))
	return true
}

func kindOfFile(name string) string {
	switch {
	case strings.HasSuffix(name, ".html"):
		return "text/html; charset=utf-8"
	case strings.HasSuffix(name, ".css"):
		return "text/css; charset=utf-8"
	case strings.HasSuffix(name, ".js"):
		return "text/javascript; charset=utf-8"
	case strings.HasSuffix(name, ".svg"):
		return "image/svg+xml"
	default:
		return ""
	}
}
