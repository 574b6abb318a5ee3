//go:build browser

package cmd

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"appview/cmd/service"
)

// These tests drive the page in a real browser. They fail on anything that the
// browser's console calls an error, and on every request that leaves the server.
// BROWSER_AXE is the file of axe-core; BROWSER_SHOTS, a folder for screenshots.

// screen is what the page is looked at on.
type screen struct {
	width, height int64
	dark          bool
}

var (
	desk  = screen{width: 1200, height: 860}
	phone = screen{width: 390, height: 844}
	night = screen{width: 1200, height: 860, dark: true}
)

// tab is a tab of a browser.
type tab struct {
	t    *testing.T
	ctx  context.Context //nolint:containedctx // a tab is its context
	base string
	on   screen

	mu      sync.Mutex
	allowed []string // of what the console may call an error
	wrong   []string
}

// open starts a browser on the page of a server.
func open(t *testing.T, base string, on screen) *tab {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatal("no browser: make browser installs chromium")
	}
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox,
		chromedp.Flag("disable-gpu", true), chromedp.Flag("disable-dev-shm-usage", true), chromedp.WindowSize(int(on.width), int(on.height)))
	alloc, cancel := chromedp.NewExecAllocator(t.Context(), opts...)
	t.Cleanup(cancel)
	ctx, stop := chromedp.NewContext(alloc)
	t.Cleanup(stop)
	b := &tab{t: t, ctx: ctx, base: base, on: on}
	if err := chromedp.Listen(ctx, b.listen); err != nil {
		t.Fatal(err)
	}
	scheme := "light"
	if on.dark {
		scheme = "dark"
	}
	b.do(chromedp.EmulateViewport(on.width, on.height, func(p *emulation.SetDeviceMetricsOverrideParams, _ *emulation.SetTouchEmulationEnabledParams) {
		p.Mobile = on.width < 500
	}))
	if _, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"},
	}}); err != nil {
		t.Fatal(err)
	}
	b.do(chromedp.Navigate(base + "/"))
	t.Cleanup(b.settled)
	return b
}

// listen notes everything that should not be.
func (b *tab) listen(event any) {
	wrong := ""
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		wrong = "exception: " + fmt.Sprint(e.ExceptionDetails.Text, " ", describe(e.ExceptionDetails.Exception))
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeWarning {
			wrong = fmt.Sprintf("console: %s %v", e.Type, e.Args)
		}
	case *log.EventEntryAdded:
		if e.Entry.Level == log.EntryLevelError || e.Entry.Level == log.EntryLevelWarning {
			wrong = fmt.Sprintf("log: %s %s", e.Entry.Text, e.Entry.URL)
		}
	case *network.EventRequestWillBeSent:
		own := strings.HasPrefix(e.Request.URL, b.base+"/") || strings.HasPrefix(e.Request.URL, "blob:"+b.base)
		if !own && !strings.HasPrefix(e.Request.URL, "data:") { // the browser's own pictures, in what it draws for inputs
			wrong = "request to " + e.Request.URL
		}
	}
	if wrong == "" {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wrong = append(b.wrong, wrong)
}

// allow lets the console complain of something that the test brings about.
func (b *tab) allow(text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.allowed = append(b.allowed, text)
}

func (b *tab) settled() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, wrong := range b.wrong {
		expected := false
		for _, text := range b.allowed {
			expected = expected || strings.Contains(wrong, text)
		}
		if !expected {
			b.t.Error(wrong)
		}
	}
}

func (b *tab) do(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	for _, action := range actions {
		ctx, cancel := context.WithTimeout(b.ctx, time.Minute)
		_, err := chromedp.Run(ctx, action)
		cancel()
		if err != nil {
			b.shot("failed-" + strings.ReplaceAll(b.t.Name(), "/", "-"))
			b.t.Fatal(err)
		}
	}
}

// value evaluates an expression in the page.
func value[T any](b *tab, expression string) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, time.Minute)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return v
}

// see waits until the page shows a text.
func (b *tab) see(text string) {
	b.t.Helper()
	b.until(fmt.Sprintf("document.body.innerText.includes(%s)", quote(text)))
}

// until waits until an expression is true.
func (b *tab) until(expression string) {
	b.t.Helper()
	late := time.After(time.Minute)
	for tick := time.Tick(50 * time.Millisecond); !value[bool](b, "(() => { try { return !!("+expression+") } catch { return false } })()"); {
		select {
		case <-tick:
		case <-late:
			b.shot("failed-" + strings.ReplaceAll(b.t.Name(), "/", "-"))
			b.t.Fatalf("never: %s; the page shows:\n%s", expression, value[string](b, "document.body.innerText"))
		}
	}
}

func quote(text string) string {
	data, err := json.Marshal(text)
	if err != nil {
		panic(err)
	}
	return string(data)
}

// click clicks what has exactly this text.
func (b *tab) click(text string) {
	b.t.Helper()
	find := fmt.Sprintf("[...document.querySelectorAll('a,button,summary,label')].find(e => e.textContent.trim() === %s && e.offsetParent !== null)", quote(text))
	b.until(find + " !== undefined")
	value[any](b, find+".click()")
}

func (b *tab) visit(hash string) {
	b.t.Helper()
	value[string](b, "location.hash = "+quote(hash))
}

// leave leaves the page, so that nothing asks a server that ends.
func (b *tab) leave() {
	b.t.Helper()
	b.do(chromedp.Navigate("about:blank"))
}

func (b *tab) signIn(dir string) {
	b.t.Helper()
	key := strings.TrimSpace(read(b.t, filepath.Join(dir, service.KeyFile)))
	b.do(chromedp.WaitVisible("input[name=key]"), chromedp.SendKeys("input[name=key]", key), chromedp.KeyEvent(kb.Enter))
	b.until("document.querySelector('nav') !== null")
}

// shot keeps a picture of the whole page, if pictures are wanted.
func (b *tab) shot(name string) {
	b.t.Helper()
	dir := os.Getenv("BROWSER_SHOTS")
	if dir == "" {
		return
	}
	b.picture(filepath.Join(dir, name+".png"))
}

func (b *tab) picture(file string) {
	b.t.Helper()
	data, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
	if err == nil {
		err = os.WriteFile(file, data, 0o600)
	}
	if err != nil {
		b.t.Error(err)
	}
}

// accessible fails on what axe-core calls serious, and on a page that is wider than
// its screen.
func (b *tab) accessible() {
	b.t.Helper()
	if wide := value[int64](b, "Math.max(innerWidth, document.documentElement.scrollWidth)"); wide > b.on.width {
		b.t.Errorf("the page is %d wide, its screen %d", wide, b.on.width) // browsers zoom out of a page that is too wide
	}
	file := os.Getenv("BROWSER_AXE")
	if file == "" {
		b.t.Fatal("BROWSER_AXE is not set: use make browser")
	}
	// From the browser itself, which the page's policy does not bind.
	value[any](b, read(b.t, file)+"\n;0")
	for _, finding := range value[[]string](b, `axe.run(document, { resultTypes: ["violations"] }).then(r => r.violations
		.filter(v => ["serious", "critical"].includes(v.impact))
		.map(v => v.id + ": " + v.help + " " + v.nodes.map(n => n.html + " " + n.failureSummary).join("; ").slice(0, 900)))`) {
		b.t.Error(finding)
	}
}

// press presses keys, and nothing else.
func (b *tab) press(keys ...string) {
	b.t.Helper()
	for _, k := range keys {
		b.do(chromedp.KeyEvent(k))
	}
}

// tabTo presses Tab until the focus is on what has the text.
func (b *tab) tabTo(text string) {
	b.t.Helper()
	for range 80 {
		on := value[string](b, "(document.activeElement?.getAttribute('aria-label') ?? document.activeElement?.labels?.[0]?.textContent ?? document.activeElement?.textContent ?? '').trim()")
		if on == text {
			if !value[bool](b, "document.activeElement.matches(':focus-visible')") {
				b.t.Errorf("the focus on %q cannot be seen", text)
			}
			return
		}
		b.press(kb.Tab)
	}
	b.t.Fatalf("%q cannot be reached with Tab", text)
}

func describe(o *runtime.RemoteObject) string {
	if o == nil {
		return ""
	}
	return o.Description
}

// downloadTo has the browser put what is downloaded into a folder.
func (b *tab) downloadTo(dir string) {
	b.t.Helper()
	_, err := chromedp.CallBrowser(b.ctx, browser.SetDownloadBehavior, browser.SetDownloadBehaviorParams{
		Behavior: browser.SetDownloadBehaviorBehaviorAllow, DownloadPath: dir,
	})
	if err != nil {
		b.t.Fatal(err)
	}
}
