package web

import (
	"crypto/sha256"
	"encoding/base64"
	"io/fs"
	"regexp"
	"strings"
	"testing"
)

// A proxy may show the page behind a path of its own, of which it tells nobody.
func TestTheAddressesOfThePageAreRelative(t *testing.T) {
	t.Parallel()
	read := func(name string) string {
		data, err := files.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	html := read("index.html")
	for _, found := range regexp.MustCompile(`\b(?:src|href|action)="([^"]*)"`).FindAllStringSubmatch(html, -1) {
		if name, own := strings.CutPrefix(found[1], "web/"); own {
			read(name)
		} else if !strings.HasPrefix(found[1], "#") {
			t.Errorf("the page names %s", found[1])
		}
	}
	// The script that adds a slash to an address without one, from where the others would not be found.
	scripts := regexp.MustCompile(`(?s)<script>(.*?)</script>`).FindAllStringSubmatch(html, -1)
	if len(scripts) != 1 {
		t.Fatalf("%d scripts are within the page", len(scripts))
	}
	sum := sha256.Sum256([]byte(scripts[0][1]))
	if hash := "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"; strings.Count(Policy, "sha256-") != 1 || !strings.Contains(Policy, hash) {
		t.Errorf("the policy lets other scripts run than the one with %s: %s", hash, Policy)
	}
	if found := regexp.MustCompile(`url\(\s*["']?/`).FindString(read("style.css")); found != "" {
		t.Errorf("style.css: %s", found)
	}
	absolute := regexp.MustCompile(`\b(?:src|href|action): *["'` + "`" + `]/|(?:} from|\bimport\() *["'` + "`" + `](?:[^.]|\.[^/])|location(?:\.href)? *= *["'` + "`" + `]/|new (?:EventSource|WebSocket|Worker)|fetch\(`)
	entries, err := files.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".js") {
			continue
		}
		for _, found := range absolute.FindAllString(strings.ReplaceAll(read(e.Name()), "fetch(urlOf(route)", ""), -1) {
			t.Errorf("%s: %s", e.Name(), found)
		}
	}
}

// Text from the network must not become markup, and nothing may come from elsewhere.
func TestThePageMakesNoMarkupOfTextAndAsksNobodyElse(t *testing.T) {
	t.Parallel()
	forbidden := regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|srcdoc|eval\(|new Function|javascript:|style="|\son[a-z]+="|localStorage\.|document\.cookie`)
	elsewhere := regexp.MustCompile(`(?:https?:)?//[a-z0-9.-]+\.[a-z]+`)
	seen := 0
	err := fs.WalkDir(files, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		seen++
		data, err := files.ReadFile(name)
		if err != nil {
			return err
		}
		if found := forbidden.FindString(string(data)); found != "" {
			t.Errorf("%s: %s", name, found)
		}
		for _, found := range elsewhere.FindAllString(string(data), -1) {
			if found != "http://www.w3.org" { // the name of SVG, never asked
				t.Errorf("%s names %s", name, found)
			}
		}
		return nil
	})
	if err != nil || seen < 10 {
		t.Errorf("%d files, %v", seen, err)
	}
}
