package server

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"
)

// web is the page at /. It is plain HTML, CSS and JavaScript modules: nothing
// builds it, and nothing of it comes from elsewhere.
//
//go:embed web
var web embed.FS

// webSpace is where the files of the page are.
const webSpace = "/web/"

// pagePolicy lets the page load its own files, talk to its own server, and nothing
// else. What it shows was written by strangers: no text can become markup, since
// scripts, styles and markup come from files alone. The one script within the page is
// named by its hash.
const pagePolicy = "default-src 'none'; script-src 'self' 'sha256-Y0XQXim+tYaQcAlmS1dYZNrXaA35dbh2JJjuetb29NM='; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// pageFile is a file of the page, ready to be served.
type pageFile struct {
	name string
	data []byte
	tag  string
}

// pageFiles are the files of the page by their path.
func pageFiles() (map[string]pageFile, error) {
	files := map[string]pageFile{}
	err := fs.WalkDir(web, "web", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := web.ReadFile(name)
		if err != nil {
			return err
		}
		hash := sha256.Sum256(data)
		f := pageFile{name: path.Base(name), data: data, tag: `"` + base64.RawURLEncoding.EncodeToString(hash[:tagBytes]) + `"`}
		if name = "/" + name; f.name == "index.html" {
			name = "/" // alone: its addresses are relative to there
		}
		files[name] = f
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the page's files: %w", err)
	}
	return files, nil
}

// servePage answers with a file of the page. Browsers keep it, and ask each time
// whether it is still the same.
func (s *Server) servePage(w http.ResponseWriter, r *http.Request) {
	f, is := s.files[r.URL.Path]
	if !is {
		s.fail(w, r, unknownRoute(r))
		return
	}
	h := w.Header()
	h.Set("Cache-Control", "no-cache")
	h.Set("Content-Security-Policy", pagePolicy)
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
