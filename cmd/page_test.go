//go:build browser

package cmd

import (
	"bufio"
	"math"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"appview/internal/sandbox"
	"appview/internal/sandbox/sandboxtest"
)

// views are the pages that there are beside those of one job.
func views() []string {
	return []string{"jobs", "create", "collections", "records", "keys", "audit", "database"}
}

func TestPageOfAnEmptyServer(t *testing.T) {
	t.Parallel()
	world, dir := newWorld(t), t.TempDir()
	s := serveIn(t, world, dir)
	for name, on := range map[string]screen{"desk": desk, "phone": phone, "night": night} {
		b := open(t, s.url, on)
		b.see("Where do I find a key?")
		b.accessible()
		b.shot("signin-" + name)
		if name == "desk" {
			b.allow("status of 401")
			b.until("document.activeElement.name === 'key'")
			b.press("hv_this-is-no-key-of-this-server", kb.Enter)
			b.see("the key is not known here")
			value[string](b, "document.querySelector('input[name=key]').value = ''")
		}
		b.signIn(dir)
		b.see("Nothing here yet")
		b.see("Create the first job")
		for _, view := range views() {
			b.visit("#/" + view)
			b.until("document.querySelector('nav [aria-current]') !== null && document.querySelector('h1') !== null")
			b.accessible()
			b.shot("empty-" + view + "-" + name)
		}
		b.click("Sign out")
		b.see("Where do I find a key?")
		if value[int](b, "sessionStorage.length + localStorage.length + document.cookie.length") != 0 {
			t.Error("something is left of who has signed out")
		}
		b.leave()
	}
	s.end()
}

// slowly has hosts take their time.
func slowly(world *sandbox.World, each time.Duration) {
	world.SetFault(func(q sandbox.Request) sandbox.Fault {
		if q.Part != sandbox.PartPDS {
			return sandbox.Fault{}
		}
		return sandbox.Fault{Delay: each}
	})
}

func TestPageOfARunningJob(t *testing.T) {
	t.Parallel()
	world, dir := sandboxtest.Start(t, sandbox.Config{Seed: 3, Repos: 1500, Hosts: 6}), t.TempDir()
	slowly(world, 400*time.Millisecond)
	s := serveIn(t, world, dir, "--repos-per-host", "2")
	b := open(t, s.url, desk)
	b.signIn(dir)
	b.click("Create the first job")
	b.until("document.activeElement.name === 'collection'")
	b.press(sandbox.StatusCollection.String())
	b.click("Review")
	b.see("every repo that the relay lists")
	b.see("if everybody is asked as fast as may be")
	b.see("by the relay's listing")
	b.accessible()
	b.shot("review-desk")
	b.click("Start the job")
	b.see("It reads records")
	b.until("document.querySelector('.chart path.records') !== null")
	b.until("document.querySelectorAll('#content table tbody tr').length === 6") // hosts
	read := value[string](b, "document.querySelector('.steps li:last-child .detail').textContent")
	b.until("document.querySelector('.steps li:last-child .detail').textContent !== " + quote(read))
	b.until("document.querySelector('.chart')?.dataset.points >= 5")
	// Hosts are drawn anew all the time, and leave whoever reads them where they were.
	value[any](b, "document.querySelector('.scroller').focus()")
	hosts := value[string](b, "document.querySelector('.scroller').textContent")
	b.until("document.querySelector('.scroller').textContent !== " + quote(hosts))
	b.until("document.activeElement === document.querySelector('.scroller')")
	b.accessible()
	b.shot("running-desk")
	for name, on := range map[string]screen{"phone": phone, "night": night} {
		other := open(t, s.url, on)
		other.signIn(dir)
		other.until("document.querySelector('.cards .badge.running') !== null")
		other.accessible()
		other.shot("jobs-" + name)
		value[any](other, "document.querySelector('.cards a').click()")
		other.see("It reads records")
		other.until("document.querySelector('.chart path.records') !== null")
		if name == "phone" {
			other.until("document.querySelector('.scroller.more') !== null")
			value[any](other, "document.querySelector('.scroller').scrollLeft = 1000")
			other.until("document.querySelector('.scroller.more') === null")
			hosts := value[string](other, "document.querySelector('.scroller').textContent")
			other.until("document.querySelector('.scroller').textContent !== " + quote(hosts))
			other.until("document.querySelector('.scroller').scrollLeft > 0")
			value[any](other, "document.querySelector('.scroller').scrollLeft = 0")
			other.until("document.querySelector('.scroller.more') !== null")
		}
		other.accessible()
		other.shot("running-" + name)
		other.leave()
	}
	b.click("Cancel")
	b.see("Cancel this job?")
	b.accessible()
	b.shot("dialog-desk")
	b.click("Leave it")
	b.until("document.querySelector('dialog') === null && document.querySelector('.title .badge').textContent === 'running'")
	b.click("Cancel")
	b.click("Cancel the job")
	b.until("document.querySelector('.title .badge').textContent === 'cancelled'")
	b.see("cancelled by request")
	b.until("![...document.querySelectorAll('#content td .badge')].some(e => e.textContent === 'active')")
	b.shot("cancelled-desk")
	world.SetFault(nil)
	first := value[string](b, "location.hash")
	b.click("Retry")
	b.until("location.hash !== " + quote(first))
	b.until("document.querySelector('.title .badge').textContent === 'completed'")
	b.see("every repo could be read")
	b.leave()
	s.end()
}

func TestPagePausesAJobAndLetsItGoOn(t *testing.T) {
	t.Parallel()
	world, dir := sandboxtest.Start(t, sandbox.Config{Seed: 7, Repos: 1500, Hosts: 4}), t.TempDir()
	slowly(world, 300*time.Millisecond)
	s := serveIn(t, world, dir, "--repos-per-host", "2")
	want(t, exitOK, "created job", nil, "backfill", "create", "--collection", sandbox.StatusCollection.String(), "--data-dir", dir)
	const status = "document.querySelector('.title .badge')?.textContent"
	const buttons = "[...document.querySelectorAll('.actions button')].map(e => e.textContent).join()"
	const done = "document.querySelector('.steps li:last-child progress').value"
	b := open(t, s.url, desk)
	b.signIn(dir)
	b.until("document.querySelector('.cards .badge.running') !== null")
	value[any](b, "document.querySelector('.cards a').click()")
	b.until(status + " === 'running' && " + buttons + " === 'Pause,Cancel,Download report'")
	b.until(done + " > 0")

	// By keyboard alone, and the focus is not lost with the button that had it.
	b.tabTo("Pause")
	b.press(kb.Enter)
	b.until("['pausing', 'paused'].includes(" + status + ") && !" + buttons + ".includes('Pause')")
	b.until(status + " === 'paused' && " + buttons + " === 'Resume,Cancel,Download report'")
	b.until("document.activeElement.textContent === 'Resume' && document.activeElement.getAttribute('aria-disabled') === null")
	b.see("It is paused")
	b.until("![...document.querySelectorAll('#content td .badge')].some(e => e.textContent === 'active')")
	b.accessible()
	b.shot("paused-desk")
	read := value[int](b, done)
	for name, on := range map[string]screen{"phone": phone, "night": night} {
		other := open(t, s.url, on)
		other.signIn(dir)
		other.until("document.querySelector('.cards .badge.paused') !== null")
		other.see("is paused")
		value[any](other, "document.querySelector('.cards a').click()")
		other.see("It is paused")
		other.accessible()
		other.shot("paused-" + name)
		other.leave()
	}
	if now := value[int](b, done); now != read {
		t.Errorf("%d repos were read when it paused, and %d later", read, now)
	}

	b.press(kb.Enter)
	b.until(status + " === 'running' && " + buttons + " === 'Pause,Cancel,Download report'")
	b.until("document.activeElement.textContent === 'Pause'")
	b.until(done + " > " + strconv.Itoa(read))
	world.SetFault(nil)
	b.until(status + " === 'completed'")
	b.see("every repo could be read")
	b.shot("resumed-desk")
	b.visit("#/audit")
	b.see("backfill:resume")
	b.see("backfill:pause")
	b.leave()
	s.end()
}

func TestPageOfAJobWithFailures(t *testing.T) {
	t.Parallel()
	world, dir := sandboxtest.Start(t, sandbox.Config{Seed: 5, Repos: 60, Hosts: 4}), t.TempDir()
	repos := world.Repos()
	refused, unknown := map[string]bool{}, repos[20].DID.String()
	for _, repo := range repos[:7] {
		refused[repo.DID.String()] = true
	}
	world.SetFault(func(q sandbox.Request) sandbox.Fault {
		if q.Part == sandbox.PartPLC && q.DID == unknown {
			return sandbox.Fault{Status: http.StatusNotFound, Header: http.Header{"Content-Type": {"application/json"}}, Body: []byte(`{"message":"DID not registered"}`)}
		}
		if q.Part != sandbox.PartPDS || !refused[q.DID] {
			return sandbox.Fault{}
		}
		return sandbox.Fault{Status: http.StatusForbidden, Header: http.Header{"Content-Type": {"application/json"}}, Body: []byte(`{"error":"<img src=x onerror=alert(1)>"}`)}
	})
	s := serveIn(t, world, dir)
	want(t, exitOK, "created job", nil, "backfill", "create", "--data-dir", dir)
	for name, on := range map[string]screen{"desk": desk, "phone": phone, "night": night} {
		b := open(t, s.url, on)
		b.signIn(dir)
		b.until("document.querySelector('.cards .badge.completed') !== null")
		b.see("could not be read")
		b.shot("failures-jobs-" + name)
		value[any](b, "document.querySelector('.cards a').click()")
		b.see("7 failed")
		b.click("failedhttp_4xx7 repos")
		b.see(repos[0].DID.String())
		b.see("It may block this server's address.")
		b.accessible()
		b.shot("failures-" + name)
		if name != "desk" {
			b.leave()
			continue
		}
		b.click("unavailablenot_found1 repo")
		b.see(unknown)
		downloads := t.TempDir()
		b.downloadTo(downloads)
		b.click("Download report")
		late := time.After(time.Minute)
		for tick := time.Tick(50 * time.Millisecond); ; {
			files, err := os.ReadDir(downloads)
			if err != nil {
				t.Fatal(err)
			}
			if len(files) == 1 && strings.HasSuffix(files[0].Name(), ".ndjson") {
				if n := strings.Count(read(t, downloads+"/"+files[0].Name()), "\n"); n != len(repos) {
					t.Errorf("the report has %d lines, there are %d repos", n, len(repos))
				}
				break
			}
			select {
			case <-tick:
			case <-late:
				t.Fatalf("no report was downloaded: %v", files)
			}
		}
		b.leave()
	}
	s.end()
}

func TestPageBrowsesRecordsWrittenByStrangers(t *testing.T) {
	t.Parallel()
	world, dir := newWorld(t), t.TempDir()
	evil := `<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>`
	owner := world.Repos()[0].DID
	if _, err := world.Create(owner, sandbox.NoteCollection, "zzz-evil", map[string]any{"$type": sandbox.NoteCollection.String(), "text": evil, "long": int64(9007199254740993)}); err != nil {
		t.Fatal(err)
	}
	s := serveIn(t, world, dir)
	want(t, exitOK, "completed", nil, "backfill", "create", "--watch", "--data-dir", dir)
	for name, on := range map[string]screen{"desk": desk, "phone": phone, "night": night} {
		b := open(t, s.url, on)
		b.signIn(dir)
		b.click("Collections")
		b.click(sandbox.NoteCollection.String())
		b.until("document.querySelectorAll('.record-list li').length > 10")
		b.accessible()
		b.shot("records-" + name)
		b.visit("#/records?did=" + owner.String() + "&collection=" + sandbox.NoteCollection.String())
		b.until("document.querySelector('.record-list .preview')?.textContent.startsWith('<img')")
		value[any](b, "document.querySelector('.record-list summary').click()")
		b.see("at://" + owner.String() + "/" + sandbox.NoteCollection.String() + "/zzz-evil")
		b.until("document.querySelector('.record pre').textContent.includes('onerror')")
		if !value[bool](b, "document.querySelector('.record pre').textContent.includes('9007199254740993')") { // past 2^53
			t.Error("a number is shown as another one")
		}
		if value[int](b, "document.querySelectorAll('#content img, #content script').length") != 0 || strings.Contains(value[string](b, "document.title"), "owned") {
			t.Error("text from the network became markup")
		}
		b.accessible()
		b.shot("record-" + name)
		b.visit("#/collections")
		b.see(sandbox.UnknownCollection.String())
		b.accessible()
		b.shot("collections-" + name)
		b.visit("#/database")
		b.see("What compaction would give back")
		b.see("stop the server and run appview compact")
		b.see("appview backup FILE")
		b.see("docs/operating.md")
		// In use is what there is beside what is free: far less than a file of 16 MiB.
		tiles := value[[]string](b, "[...document.querySelectorAll('.tiles dd')].slice(0, 3).map(e => e.textContent)")
		stats := want(t, exitOK, "database", nil, "stats", "--data-dir", dir)
		if !strings.Contains(stats, tiles[0]+", "+tiles[2]+" of it free") || !strings.HasSuffix(tiles[0], " MiB") || !strings.HasSuffix(tiles[1], " KiB") {
			t.Errorf("the page says of the file, what is used and what is free %q, the command line:\n%s", tiles, stats)
		}
		b.accessible()
		b.shot("database-" + name)
		b.visit("#/jobs")
		b.see("ended")
		b.shot("jobs-done-" + name)
		b.leave()
	}
	s.end()
}

func TestPageKeepsCollectionsKeysAndWhoDidWhat(t *testing.T) {
	t.Parallel()
	world, dir := newWorld(t), t.TempDir()
	s := serveIn(t, world, dir)
	b := open(t, s.url, desk)
	b.signIn(dir)

	b.click("Collections")
	b.see("Track a collection to have it read")
	value[any](b, "document.querySelector('input[name=collection]').focus()")
	b.press(sandbox.StatusCollection.String(), kb.Enter)
	b.see("is tracked.")
	b.until("document.querySelector('.badge.active')?.textContent === 'tracked'")
	b.click("The job that reads it")
	b.until("document.querySelector('.title .badge')?.textContent === 'completed'")
	for name, on := range map[string]screen{"desk": desk, "phone": phone, "night": night} {
		other := open(t, s.url, on)
		other.signIn(dir)
		other.visit("#/collections")
		other.see("read again in")
		other.accessible()
		other.shot("tracked-" + name)
		other.visit("#/keys")
		other.see("Make a key")
		other.accessible()
		other.shot("keys-" + name)
		other.leave()
	}
	b.click("Collections")
	b.until("document.querySelector('.scroller tbody tr td:nth-child(4)').textContent.endsWith('ago')")
	b.click("Stop")
	b.see("Stop tracking " + sandbox.StatusCollection.String() + "?")
	b.accessible()
	b.shot("untrack-desk")
	b.click("Delete the records")
	b.see("is not tracked any more, and ")

	b.click("Keys")
	value[any](b, "document.querySelector('input[name=name]').focus()")
	b.press("the website", kb.Enter)
	b.until("document.querySelector('.secret') !== null")
	key := value[string](b, "document.querySelector('.secret').textContent")
	b.accessible()
	b.shot("key-made-desk")

	guest := open(t, s.url, desk)
	guest.allow("status of 40")                    // 403, and 401 in the end
	guest.allow("ERR_INCOMPLETE_CHUNKED_ENCODING") // the stream that breaks with its key
	guest.do(chromedp.WaitVisible("input[name=key]"), chromedp.SendKeys("input[name=key]", key), chromedp.KeyEvent(kb.Enter))
	guest.until("document.querySelector('.cards .badge.completed') !== null")
	guest.click("Keys")
	guest.see("The key lacks the permission keys:manage.")
	guest.accessible()
	guest.shot("forbidden-desk")
	guest.click("Jobs")
	guest.until("document.querySelector('.cards .badge.completed') !== null")
	hang(world)
	want(t, exitOK, "created job", nil, "backfill", "create", "--data-dir", dir)
	guest.until("document.querySelector('.cards .badge.running') !== null")
	value[any](guest, "document.querySelector('.cards a').click()")
	guest.until("document.querySelector('.title .badge')?.textContent === 'running'")

	value[any](b, "[...document.querySelectorAll('button')].find(e => e.getAttribute('aria-label') === 'Revoke the website').click()")
	b.see("Revoke the website?")
	b.click("Revoke the key")
	b.until("document.querySelector('.badge.revoked') !== null")
	guest.see("You have been signed out: the key was revoked")
	guest.shot("signed-out-desk")
	guest.leave()

	b.click("Audit log")
	b.see("key:revoke")
	b.see("the website")
	b.accessible()
	b.shot("audit-desk")
	b.leave()
	s.end()
}

func TestPageWithNothingButAKeyboard(t *testing.T) {
	t.Parallel()
	world, dir := newWorld(t), t.TempDir()
	hang(world)
	s := serveIn(t, world, dir)
	b := open(t, s.url, desk)
	b.signIn(dir) // types the key and presses Enter
	b.see("Nothing here yet")
	b.tabTo("Skip to the content")
	b.press(kb.Enter)
	b.until("document.activeElement.id === 'content'")
	b.tabTo("Create the first job")
	b.press(kb.Enter)
	b.until("document.activeElement.name === 'collection'")
	b.press(sandbox.StatusCollection.String(), kb.Enter)
	b.until("document.activeElement.textContent === 'Start the job'")
	b.press(kb.Enter)
	b.until("document.querySelector('.title .badge')?.textContent === 'running'")
	b.tabTo("Cancel")
	b.press(kb.Enter)
	b.until("document.querySelector('dialog[open]') !== null")
	b.press(kb.Escape)
	b.until("document.querySelector('dialog') === null && document.activeElement.textContent === 'Cancel'")
	b.press(kb.Enter)
	b.tabTo("Cancel the job")
	b.press(kb.Enter)
	b.until("document.querySelector('.title .badge').textContent === 'cancelled'")
	b.tabTo("← Jobs")
	b.press(kb.Enter)
	b.until("location.hash === '#/jobs' && document.querySelector('.cards .badge.cancelled') !== null")
	b.tabTo("Records")
	b.press(kb.Enter)
	b.until("document.querySelector('h1').textContent === 'Records'")
	b.leave()
	s.end()
}

func TestPageOutlivesItsServer(t *testing.T) {
	t.Parallel()
	world, dir := newWorld(t), t.TempDir()
	hang(world)
	s := serveIn(t, world, dir)
	at := strings.TrimPrefix(s.url, "http://")
	want(t, exitOK, "created job", nil, "backfill", "create", "--data-dir", dir)
	b := open(t, s.url, desk)
	b.allow("Failed to load resource")
	b.signIn(dir)
	b.until("document.querySelector('.cards a') !== null")
	value[any](b, "document.querySelector('.cards a').click()")
	b.until("document.querySelector('.title .badge')?.textContent === 'running'")
	s.end()
	b.see("The server does not answer")
	b.shot("gone-desk")
	world.SetFault(nil)
	again := serveIn(t, world, dir, "--listen", at)
	b.until("document.querySelector('.title .badge').textContent === 'completed'")
	b.until("!document.body.innerText.includes('The server does not answer')")
	b.leave()
	again.end()
}

// streams is how many streams of events a server sends.
func streams(t *testing.T, url string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := new(http.Client).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		if n, is := strings.CutPrefix(lines.Text(), "appview_event_streams "); is {
			return n
		}
	}
	t.Fatalf("the server does not say how many streams it sends: %v", lines.Err())
	return ""
}

// TestPageThatNobodySeesTakesNoConnection has the tab hidden and seen again: its
// stream ends, and another tells what has happened meanwhile.
func TestPageThatNobodySeesTakesNoConnection(t *testing.T) {
	t.Parallel()
	world, dir := newWorld(t), t.TempDir()
	hang(world)
	s := serveIn(t, world, dir)
	want(t, exitOK, "created job", nil, "backfill", "create", "--data-dir", dir)
	b := open(t, s.url, desk)
	b.signIn(dir)
	b.visit("#/job/" + newestJob(t, dir).ID)
	until(t, "the job is followed", func() bool { return streams(t, s.url) == "1" })
	b.see("reads records")
	look := func(hidden bool) {
		value[any](b, "Object.defineProperty(document, 'hidden', { configurable: true, get: () => "+strconv.FormatBool(hidden)+" }) && 0")
		value[bool](b, "document.dispatchEvent(new Event('visibilitychange'))")
	}
	for range 2 {
		look(true)
		until(t, "the stream has ended", func() bool { return streams(t, s.url) == "0" })
		look(false)
		until(t, "the job is followed again", func() bool { return streams(t, s.url) == "1" })
	}
	look(true)
	until(t, "the stream has ended", func() bool { return streams(t, s.url) == "0" })
	want(t, exitOK, "stops", nil, "backfill", "cancel", newestJob(t, dir).ID, "--data-dir", dir)
	until(t, "the job was cancelled", func() bool { return newestJob(t, dir).Status == "cancelled" })
	look(false)
	b.until("document.querySelector('.title .badge').textContent === 'cancelled'")
	b.leave()
	s.end()
}

// TestPageLeftOpenKeepsNothing has the list look again and again, and counts what waits
// for the view's end.
func TestPageLeftOpenKeepsNothing(t *testing.T) {
	t.Parallel()
	world, dir := newWorld(t), t.TempDir()
	s := serveIn(t, world, dir)
	b := open(t, s.url, desk)
	b.signIn(dir)
	b.see("Nothing here yet")
	value[any](b, `(() => {
		const wait = setTimeout;
		window.setTimeout = (f, ms) => wait(f, Math.min(ms, 10));
		window.looks = 0; window.held = 0;
		const { addEventListener: add, removeEventListener: remove } = EventTarget.prototype;
		AbortSignal.prototype.addEventListener = function (...args) { looks++; held++; return add.apply(this, args); };
		AbortSignal.prototype.removeEventListener = function (...args) { held--; return remove.apply(this, args); };
	})() ?? 0`)
	b.visit("#/keys")
	b.see("Keys there are")
	b.visit("#/jobs")
	b.until("looks > 100")
	if held := value[int](b, "held"); held > 10 {
		t.Errorf("%d listeners are left of %d", held, value[int](b, "looks"))
	}
	b.leave()
	s.end()
}

func TestPageOfJobsShowsThemAllThoughNewOnesCome(t *testing.T) {
	t.Parallel()
	world, dir := newWorld(t), t.TempDir()
	hang(world)
	s := serveIn(t, world, dir)
	create := func(n int) {
		for range n {
			want(t, exitOK, "created job", nil, "backfill", "create", "--did", "did:web:nobody.example", "--data-dir", dir)
		}
	}
	create(24)
	b := open(t, s.url, desk)
	b.signIn(dir)
	b.until("document.querySelectorAll('.cards a').length === 24 && document.querySelector('main .actions button') === null")
	create(4)
	b.until("document.querySelectorAll('.cards a').length === 25")
	b.click("Older jobs")
	b.until("document.querySelectorAll('.cards a').length === 28")
	create(2)
	b.until("document.querySelectorAll('.cards a').length === 30")
	b.leave()
	s.end()
}

func TestPageOfAnAddressThatMeansNothing(t *testing.T) {
	t.Parallel()
	world, dir := newWorld(t), t.TempDir()
	s := serveIn(t, world, dir)
	b := open(t, s.url, desk)
	b.allow("status of 404")
	b.signIn(dir)
	for hash, shown := range map[string]string{"#/constructor": "Nothing here yet", "#/job/%": "There is no job", "#/%": "Nothing here yet", "#/job/%E0%A4%A": "There is no job"} {
		b.visit("#/keys")
		b.see("Keys there are")
		b.visit(hash)
		b.see(shown)
	}
	b.leave()
	s.end()
}

// TestScreenshot makes the picture of the README, if it is told where to put it.
func TestScreenshot(t *testing.T) {
	t.Parallel()
	file := os.Getenv("SCREENSHOT")
	if file == "" {
		t.Skip("SCREENSHOT names no file")
	}
	world, dir := sandboxtest.Start(t, sandbox.Config{Seed: 1, Repos: 600, Hosts: 8, Skew: true}), t.TempDir()
	hosts, repos := world.HostURLs(), world.Repos()
	var refused []string
	for _, repo := range repos {
		if len(refused) < 5 && repo.Host == hosts[0] {
			refused = append(refused, repo.DID.String())
		}
	}
	answer := func(status int, header http.Header) sandbox.Fault {
		header.Set("Content-Type", "application/json")
		return sandbox.Fault{Status: status, Header: header, Body: []byte(`{"error":"No","message":"not now"}`)}
	}
	world.SetFault(func(q sandbox.Request) sandbox.Fault {
		switch {
		case q.Part != sandbox.PartPDS:
			return sandbox.Fault{}
		case q.Host == hosts[3]:
			return answer(http.StatusTooManyRequests, http.Header{"Retry-After": {"240"}})
		case q.Host == hosts[4]:
			return sandbox.Fault{Cut: true}
		case slices.Contains(refused, q.DID):
			return answer(http.StatusForbidden, http.Header{})
		default: // now faster, now slower
			return sandbox.Fault{Delay: time.Duration(250+200*math.Sin(float64(time.Now().UnixMilli())/1500)) * time.Millisecond}
		}
	})
	s := serveIn(t, world, dir, "--repos-per-host", "3")
	want(t, exitOK, "created job", nil, "backfill", "create", "--collection", sandbox.StatusCollection.String(), "--data-dir", dir)
	b := open(t, s.url, screen{width: 1100, height: 760})
	b.signIn(dir)
	b.until("document.querySelector('.cards a') !== null")
	value[any](b, "document.querySelector('.cards a').click()")
	b.until("document.querySelector('.chart')?.dataset.points >= 12 && document.querySelector('.badge.parked') !== null && document.querySelector('.badge.down') !== null && document.querySelector('.reason') !== null")
	b.picture(file)
	b.leave()
	s.end()
}
