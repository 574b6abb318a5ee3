package answer

import (
	"log/slog"
	"net/http"
	"sync"
	"time"
)

// Answers writes the answers of a server, and bounds what they take together.
type Answers struct {
	log     *slog.Logger
	version string // of the program, which tags depend on
	// pathForClients is the path of a route as clients reach it.
	PathForClients func(route string) string
	// whileKeyIsGood streams until f is done, or the key of the request opens nothing any more.
	WhileKeyIsGood func(w http.ResponseWriter, r *http.Request, f func(http.ResponseWriter, *http.Request) error) error

	budget  *answerBudget // of answers under way
	Bounds  bounds
	buffers sync.Pool // of *[]byte, for answers
	Zips    sync.Pool // of *gzip.Writer
}

const (
	// Timeout is for how long an answer may be written.
	Timeout = 60 * time.Second
	// PageBytes as they are printed, end a page early. Its cursor goes on behind it.
	PageBytes = 8 << 20
	// Room is charged for an answer before it is known how long it is. A page that
	// ends before has a tag, and may be cached.
	Room = 1 << 20
	// TagBytes is how much of a hash is a tag.
	TagBytes = 15
)

// New writes answers that take so many bytes together.
func New(log *slog.Logger, version string, bytes int64) *Answers {
	return &Answers{
		log: log, version: version, budget: newAnswerBudget(bytes),
		Bounds: bounds{
			Exports: make(chan struct{}, MaxExports), Reports: make(chan struct{}, MaxReports), Plans: make(chan struct{}, MaxPlans),
			Streams: make(chan struct{}, maxStreams), Backups: make(chan struct{}, MaxBackups),
			Answer: Timeout, Pace: Pace{Write: lineWriteTimeout, Window: lineWindow, Rate: lineMinRate},
			Beat: streamBeat, Event: streamWriteTimeout, Look: WatchEvery,
		},
	}
}
