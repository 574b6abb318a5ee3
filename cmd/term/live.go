package term

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/vbauerster/cupwriter"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"appview/internal/api"
)

const (
	// liveRefresh is how often the lines are drawn.
	liveRefresh = 200 * time.Millisecond
	// liveLines bounds the lines below the bar, livePaused the hosts among them.
	liveLines  = 10
	livePaused = 5
)

// liveDisplay shows the job on a terminal, in lines that change in place.
type liveDisplay struct {
	w io.Writer

	// Of whoever calls job and end: the bar must not be told anything with the lock
	// held that drawing it takes.
	progress *mpb.Progress
	bar      *mpb.Bar // nil until there is something to show

	mu     sync.Mutex
	now    Job
	paused []api.Host // hosts that may not be asked
	away   bool       // the server is
	frame  []string   // the lines that are being drawn
}

func (d *liveDisplay) Job(j Job, _ json.RawMessage) {
	d.mu.Lock()
	d.now = j
	d.mu.Unlock()
	if d.bar == nil {
		_, _ = fmt.Fprintln(d.w, Plain("job "+j.ID.String()+": "+j.Covers())) // nobody may read it any more
		d.begin()
	}
	done, total := int64(0), int64(0)
	if j.ProcessedRepos != nil && j.TotalRepos != nil {
		done, total = *j.ProcessedRepos, *j.TotalRepos
	}
	d.bar.SetTotal(max(total, 1), false)
	d.bar.SetCurrent(min(done, max(total, 1)))
}

// begin draws the bar, and what there is to say below it.
func (d *liveDisplay) begin() {
	d.progress = mpb.New(mpb.WithConsoleWriter(newConsole(d.w)), mpb.WithAutoRefresh(), mpb.WithRefreshRate(liveRefresh))
	lines := make([]mpb.BarFiller, liveLines)
	for i := range lines {
		lines[i] = mpb.BarFillerFunc(func(w io.Writer, s decor.Statistics) error { return d.draw(w, i, s.AvailableWidth) })
	}
	say := func(what func(Job) string) decor.Decorator {
		return decor.Any(func(decor.Statistics) string {
			d.mu.Lock()
			defer d.mu.Unlock()
			return Plain(what(d.now))
		})
	}
	d.bar = d.progress.New(0, mpb.BarStyle().Lbound("[").Filler("=").Tip(">").Padding(" ").Rbound("]"),
		mpb.PrependDecorators(say(func(j Job) string { return fmt.Sprintf("%-17s", j.Phase()) })),
		mpb.AppendDecorators(say(func(j Job) string { return " " + j.share() })),
		mpb.BarBtmExtender(lines...))
}

// newConsole is where the lines are drawn.
func newConsole(w io.Writer) mpb.ConsoleWriter {
	console := cupwriter.New(fromLeft{w}, false)
	if f, ok := w.(*os.File); ok {
		console.SetTermFd(int(f.Fd()))
	}
	return console
}

// fromLeft draws from the left edge of the terminal: what is typed meanwhile, and be
// it ^C, has moved on from there.
type fromLeft struct{ w io.Writer }

func (l fromLeft) Write(p []byte) (int, error) {
	n, err := l.w.Write(append([]byte{'\r'}, p...))
	return max(n-1, 0), err
}

// share says how much of the job is done.
func (j Job) share() string {
	repos := Number(j.ProcessedRepos) + "/" + Number(j.TotalRepos) + " repos"
	if j.ProcessedRepos == nil || j.TotalRepos == nil || *j.TotalRepos == 0 || !j.DiscoveryComplete {
		return repos // of which nobody knows the end
	}
	return fmt.Sprintf("%s %3d%%", repos, *j.ProcessedRepos*100 / *j.TotalRepos)
}

// draw writes a line below the bar, if there is that one.
func (d *liveDisplay) draw(w io.Writer, i, width int) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if i == 0 {
		d.frame = d.lines(time.Now())
	}
	if i >= len(d.frame) {
		return nil
	}
	_, err := fmt.Fprintln(w, Cut(Plain(d.frame[i]), width))
	return err
}

// lines are what there is to say below the bar.
func (d *liveDisplay) lines(now time.Time) []string {
	lines := []string{strings.Join(d.now.Pace(), "  ")}
	if lost := d.now.Losses(); lost != "" {
		lines = append(lines, lost)
	}
	if service := d.now.service(now); service != "" {
		lines = append(lines, service)
	}
	for i, h := range d.paused {
		if i == livePaused {
			lines = append(lines, fmt.Sprintf("  and %d more hosts that are down or asked for a pause", len(d.paused)-i))
			break
		}
		lines = append(lines, fmt.Sprintf("  %-6s  %-26s  %6s repos left  %s", h.State, askedAgain(h, now), left(h), h.Endpoint))
	}
	if d.away {
		lines = append(lines, serverLost)
	}
	return lines
}

func (d *liveDisplay) Hosts(list []api.Host) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.paused = nil
	for _, h := range list {
		if isSetAside(h) {
			d.paused = append(d.paused, h)
		}
	}
}

func (d *liveDisplay) Lost(is bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.away = is
}

// End draws the lines for the last time, without what is over.
func (d *liveDisplay) End() {
	d.mu.Lock()
	if d.now.Status.Final() {
		d.paused = nil
	}
	completed := d.now.Status == api.StatusCompleted
	d.mu.Unlock()
	switch {
	case d.bar == nil:
		return
	case completed:
		d.bar.SetTotal(-1, true)
	default:
		d.bar.Abort(false)
	}
	d.progress.Wait()
}
