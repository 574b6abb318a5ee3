//go:build browser

package cmd

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"appview/internal/sandbox"
	"appview/internal/sandbox/sandboxtest"
)

// The page sends every request below the path, or the tab complains.
func TestPageBehindAPath(t *testing.T) {
	t.Parallel()
	for name, isStripped := range map[string]bool{"stripped": true, "kept": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n, port := newNginx(t)
			world, dir := sandboxtest.Start(t, sandbox.Config{Seed: 3, Repos: 600, Hosts: 6}), t.TempDir()
			slowly(world, 200*time.Millisecond)
			args := []string{"--repos-per-host", "2"}
			if !isStripped {
				args = append(args, "--base-path", shownAt)
			}
			s := serveIn(t, world, dir, args...)
			n.start(port, upstream(t, documented(t, isStripped), strings.TrimSuffix(s.url, shownAt)))
			b := open(t, n.url+shownAt, desk)
			b.signIn(dir)
			b.click("Create the first job")
			b.until("document.activeElement.name === 'collection'")
			b.press(sandbox.StatusCollection.String())
			b.click("Review")
			b.see("every repo that the relay lists")
			b.click("Start the job")
			b.see("It reads records")
			b.until("document.querySelector('.chart path.records') !== null")
			read := value[string](b, "document.querySelector('.steps li:last-child .detail').textContent")
			b.until("document.querySelector('.steps li:last-child .detail').textContent !== " + quote(read))
			b.shot("path-" + name)
			b.until("document.querySelector('.badge.completed') !== null")
			if !value[bool](b, "document.querySelector('.brand img').naturalWidth > 0") {
				t.Error("the icon is not shown")
			}
			for _, view := range views() {
				b.visit("#/" + view)
				b.until("document.querySelector('nav [aria-current]') !== null && document.querySelector('h1') !== null && document.querySelector('.notice.bad:not([hidden])') === null")
			}
			b.do(chromedp.Reload())
			b.until("document.querySelector('nav') !== null") // still signed in
			for _, link := range value[[]string](b, "[...document.querySelectorAll('footer a')].map(a => a.href)") {
				if code, _ := page(t, link); code != http.StatusOK && !strings.HasSuffix(link, "/metrics") { // which the proxy hides
					t.Errorf("%s: %d", link, code)
				}
			}
			b.leave()
			s.end()
		})
	}
}

// A proxy may strip a path without its slash too, and then shows the page where its
// addresses lead elsewhere.
func TestPageAddsTheSlashThatAProxyHasTaken(t *testing.T) {
	t.Parallel()
	n, port := newNginx(t)
	dir := t.TempDir()
	s := serveIn(t, newWorld(t), dir)
	n.start(port, upstream(t, documented(t, true), s.url)+"location = "+shownAt+" { proxy_pass "+s.url+"/; }\n")
	if code, body := page(t, n.url+shownAt); code != http.StatusOK || !strings.Contains(body, "<!doctype html>") {
		t.Fatalf("the proxy strips no path without a slash: %d %s", code, body)
	}
	b := open(t, n.url+shownAt, desk)
	b.allow("request to " + n.url + shownAt + "?to=here")
	b.allow(n.url + "/web/") // which a browser may look for before the script runs
	b.do(chromedp.Navigate(n.url + shownAt + "?to=here#/keys"))
	b.until("location.href === " + quote(n.url+shownAt+"/?to=here#/keys"))
	b.signIn(dir)
	b.see("Make a key")
	b.leave()
	s.end()
}
