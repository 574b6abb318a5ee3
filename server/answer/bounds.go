package answer

import "time"

// bounds is what answers that go on may take. Tests set other times.
type bounds struct {
	// Each holds one token for each that runs.
	Exports, Reports, Plans, Streams, Backups chan struct{}

	Answer      time.Duration // for how long an answer may be written that is taken not at all
	Pace        Pace          // of clients that take lines
	Beat, Event time.Duration // at most without a word on a stream of events; for one write there
	Look        time.Duration // between two looks at a watched job
}

// How many answers of a kind may be under way.
const (
	// MaxExports bounds the exports that run at once. Each holds a read transaction
	// open, during which the file cannot reuse pages: the client must keep up.
	MaxExports = 2
	// MaxReports bounds the reports that run at once.
	MaxReports = 4
	// MaxPlans bounds the plans that are made at once: each asks the network.
	MaxPlans = 2
	// MaxBackups bounds the backups that run at once, for the same reason as exports.
	MaxBackups = 1
	// maxStreams bounds the streams of events. The client may be a browser that somebody
	// has left open for a week.
	maxStreams = 256
)

// Times of a stream of events.
const (
	streamBeat         = 15 * time.Second // at most without a word: proxies cut what is silent for long
	streamWriteTimeout = 10 * time.Second
	// WatchEvery is how often a watched job is looked at: as often as its streams may
	// have news. Looking beats being told of commits, since what a job waits for and
	// how fast it is change without one.
	WatchEvery = 250 * time.Millisecond
)
