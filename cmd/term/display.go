package term

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"

	"appview/internal/api"
)

const (
	// plainEvery is how often a line is printed where no terminal is: lines stay.
	plainEvery = 5 * time.Second
	// plainHosts bounds the hosts of whom a line is printed at once.
	plainHosts = 10
)

// Display shows how a job goes on. hosts and lost may be called at any time, job and
// end only by one at a time.
type Display interface {
	// Job shows the job's state, which is not the one before. raw is the server's JSON.
	Job(j Job, raw json.RawMessage)
	// Hosts shows the hosts of the job.
	Hosts(list []api.Host)
	// Lost shows that the server does not answer, or that it does again.
	Lost(is bool)
	// End leaves what was shown last where it is.
	End()
}

// NewDisplay is how a job is shown on w: in place on a terminal that can do that,
// which the variable TERM tells.
func NewDisplay(w io.Writer, term string) Display {
	if IsTerminal(w) && term != "dumb" {
		return &liveDisplay{w: w}
	}
	return &plainDisplay{w: w, now: time.Now}
}

// NewJSONDisplay prints every state of the job as a line of JSON on w.
func NewJSONDisplay(w io.Writer) Display { return &jsonDisplay{w: JSONTo(w)} }

// jsonDisplay prints every state of the job as a line of JSON.
type jsonDisplay struct{ w io.Writer }

func (d *jsonDisplay) Job(_ Job, raw json.RawMessage) {
	var line bytes.Buffer
	if json.Compact(&line, raw) == nil { // it was decoded before
		_, _ = fmt.Fprintln(d.w, line.String()) // nobody may read it any more
	}
}

func (*jsonDisplay) Hosts([]api.Host) {}
func (*jsonDisplay) Lost(bool)        {}
func (*jsonDisplay) End()             {}

// plainDisplay prints a line now and then, whenever the job enters another phase,
// and when it stands otherwise with a host.
type plainDisplay struct {
	w   io.Writer
	now func() time.Time

	mu     sync.Mutex
	phase  string // that was shown last
	at     time.Time
	states map[string]api.HostState // of hosts that may not be asked
}

func (d *plainDisplay) say(format string, args ...any) {
	_, _ = fmt.Fprintln(d.w, Plain(fmt.Sprintf(format, args...))) // nobody may read it any more
}

func (d *plainDisplay) Job(j Job, _ json.RawMessage) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if now := d.now(); j.Phase() != d.phase || now.Sub(d.at) >= plainEvery {
		d.phase, d.at = j.Phase(), now
		d.say("%s", j.line(now))
	}
}

func (d *plainDisplay) Hosts(list []api.Host) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.states == nil {
		d.states = map[string]api.HostState{}
	}
	var news []string
	for _, h := range list {
		before := d.states[h.Endpoint]
		switch {
		case h.State == before:
		case isSetAside(h):
			d.states[h.Endpoint] = h.State
			news = append(news, fmt.Sprintf("host %s is %s until %s, %s repos left", h.Endpoint, h.State, Text(h.PausedUntil, "it answers"), left(h)))
		case before != "":
			delete(d.states, h.Endpoint)
			news = append(news, fmt.Sprintf("host %s is %s: %s repos read, %s given up", h.Endpoint, h.State, Count(h.CompletedRepos), Count(h.FailedRepos)))
		}
	}
	for _, line := range news[:min(len(news), plainHosts)] {
		d.say("%s", line)
	}
	if more := len(news) - plainHosts; more > 0 {
		d.say("and %d more hosts", more)
	}
}

func (d *plainDisplay) Lost(is bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if is {
		d.say("%s", serverLost)
	} else {
		d.say("the server answers again")
	}
}

func (*plainDisplay) End() {}

// serverLost is shown while a server is waited for.
const serverLost = "the server does not answer: trying again"

// isSetAside reports whether the host may not be asked at the moment.
func isSetAside(h api.Host) bool { return h.State == api.HostParked || h.State == api.HostDown }

// left is how many repos of the host are not settled.
func left(h api.Host) string {
	return Count(h.TotalRepos - h.CompletedRepos - h.FailedRepos)
}

// askedAgain says when a host is asked again.
func askedAgain(h api.Host, now time.Time) string {
	until, err := time.Parse(time.RFC3339, Text(h.PausedUntil, ""))
	if err != nil {
		return ""
	}
	left := int64(until.Sub(now).Seconds())
	if left <= 0 {
		return "is asked again"
	}
	return "asked again in " + Span(left)
}
