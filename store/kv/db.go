package kv

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
	"golang.org/x/sync/semaphore"

	"appview/internal/datadir"
)

// defaultReserve is the free disk that is left alone, so that the system and the last
// commits have room.
const defaultReserve = 256 << 20

// Config says where the file is and how it is written. Zero values mean the
// defaults.
type Config struct {
	Path       string
	Dir        *datadir.Dir                     // the directory of Path; nil: it is opened, and closed, with the file
	FlushEvery time.Duration                    // how long a change may wait for company: 250 ms
	Reserve    uint64                           // free bytes on the disk to leave alone: 256 MiB
	FreeSpace  func(dir string) (uint64, error) // default: asks the system
	Now        func() time.Time                 // default: time.Now
	Log        *slog.Logger                     // default: slog.Default
	ReadOnly   bool                             // open for reading only, as check does
	Observe    func(Commit)                     // told of every commit, by the writer; must not wait for anything
	Hooks      Hooks                            // tests crash here
}

// Commit is a transaction of the writer, as it is measured.
type Commit struct {
	Changes int           // made in it
	Bytes   int           // of what they brought to be written
	Took    time.Duration // until it was safe on the disk
}

// Hooks are called around every commit. A hook that fails stops the writer as a
// failed commit does. Nil hooks are off.
type Hooks struct {
	BeforeCommit, AfterCommit func() error

	// Making is told before the commit what each change of the group does.
	Making func(op string)
	// Step, if not zero, takes the place of every bound on the rows of one
	// transaction, so that a test needs few of them to go past it.
	Step int
}

// bound is how many rows one transaction may deal with, usually so many.
func (h Hooks) bound(usual int) int {
	if h.Step > 0 {
		return h.Step
	}
	return usual
}

func (h Hooks) making(pending []Change, results []error) {
	if h.Making == nil {
		return
	}
	for i, c := range pending {
		if results[i] == nil || errors.Is(results[i], ErrAgain) {
			h.Making(c.Op)
		}
	}
}

func (h Hooks) beforeCommit() error {
	if h.BeforeCommit == nil {
		return nil
	}
	return h.BeforeCommit()
}

func (h Hooks) afterCommit() error {
	if h.AfterCommit == nil {
		return nil
	}
	return h.AfterCommit()
}

// DB is an open file.
type DB struct {
	cfg    Config
	schema Schema
	bolt   *bbolt.DB
	dir    *datadir.Dir // of Path
	file   *os.File     // of bolt
	info   os.FileInfo  // of file

	queue       chan Change
	ends        chan Change         // that end work, while the disk is full
	flushNow    chan struct{}       // commit what there is
	queuedBytes *semaphore.Weighted // of changes that are not committed yet
	closing     sync.RWMutex        // held for reading while a change is queued
	closed      bool
	last        []Change      // of Close
	quit        chan struct{} // closed when Close begins
	stopped     chan struct{} // closed when the writer has ended
	drained     sync.WaitGroup
	quitting    sync.Once

	clock clock // of the writer

	failing sync.Once
	failure atomic.Pointer[error]
	failed  chan struct{} // closed with failure
	full    atomic.Bool
	noSpace atomic.Bool // changes are held because a commit has found no room
}

// Open opens the file, making it if it is not there, and brings it to the last version
// of the schema. It fails with ErrLocked, ErrNewer or ErrDamaged where these apply.
func Open(cfg Config, schema Schema) (*DB, error) {
	db, err := prepare(cfg, schema)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if err := db.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", db.cfg.Path, err), db.shut(err))
	}
	if db.cfg.ReadOnly {
		db.closed = true
		close(db.stopped)
		return db, nil
	}
	go db.write()
	return db, nil
}

// prepare makes a DB of which nothing is open yet.
func prepare(cfg Config, schema Schema) (*DB, error) {
	if cfg.Path == "" {
		return nil, errors.New("no path")
	}
	if cfg.FlushEvery == 0 {
		cfg.FlushEvery = defaultFlushEvery
	}
	if cfg.Reserve == 0 {
		cfg.Reserve = defaultReserve
	}
	if cfg.FreeSpace == nil {
		cfg.FreeSpace = freeSpace
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	dir := cfg.Dir
	if dir == nil {
		var err error
		if dir, err = datadir.Open(filepath.Dir(cfg.Path)); err != nil {
			return nil, err
		}
	}
	return &DB{
		cfg:         cfg,
		schema:      schema,
		dir:         dir,
		queue:       make(chan Change, queueLen),
		ends:        make(chan Change, endsLen),
		flushNow:    make(chan struct{}, 1),
		queuedBytes: semaphore.NewWeighted(maxQueuedBytes),
		quit:        make(chan struct{}),
		stopped:     make(chan struct{}),
		failed:      make(chan struct{}),
	}, nil
}

// Close commits what is queued, and then the last changes, and closes the file.
func (db *DB) Close(last ...Change) error {
	db.quitting.Do(func() { close(db.quit) })
	db.closing.Lock()
	if !db.closed {
		db.closed, db.last = true, last
		close(db.queue)
	}
	db.closing.Unlock()
	<-db.stopped
	db.drained.Wait()
	if err := db.shut(db.damaged()); err != nil {
		return fmt.Errorf("close %s: %w", db.cfg.Path, err)
	}
	return nil
}

// shut closes the file. A panic within bbolt may have left its locks held, for which
// its own Close would wait for ever: then its map stays until the process ends.
func (db *DB) shut(why error) error {
	_, broken := errors.AsType[*panicked](why)
	var err error
	switch {
	case db.file == nil:
	case broken:
		err = errors.Join(unlock(db.file), db.file.Close())
	default:
		err = db.bolt.Close()
	}
	return errors.Join(err, db.closeDir())
}

// name is the file's, in its directory.
func (db *DB) name() string { return filepath.Base(db.cfg.Path) }

// closeDir closes the directory if it was opened with the file.
func (db *DB) closeDir() error {
	if db.cfg.Dir != nil {
		return nil
	}
	return db.dir.Close()
}

// Queued is how many changes wait for the writer.
func (db *DB) Queued() int { return len(db.queue) + len(db.ends) }

// OpenReads is how many read transactions are open. The file cannot reuse pages
// meanwhile.
func (db *DB) OpenReads() int { return db.bolt.Stats().OpenTxN }

// Bound is how many rows one transaction may deal with, usually so many.
func (db *DB) Bound(usual int) int { return db.cfg.Hooks.bound(usual) }

// Log is where the file's own events are logged.
func (db *DB) Log() *slog.Logger { return db.cfg.Log }

// Size is the length of the file, and how much of it is free: what was used and is to
// be used again, and the end of the file, which bbolt makes longer in large steps
// before there is anything to put there.
func (db *DB) Size(tx *Tx) (file, free int64, err error) {
	info, err := db.file.Stat()
	if err != nil {
		return 0, 0, fmt.Errorf("size of the database: %w", err)
	}
	return info.Size(), int64(db.bolt.Stats().FreeAlloc) + max(info.Size()-tx.Size(), 0), nil
}

// observe tells of a commit, if anybody wants to know.
func (db *DB) observe(pending []Change, took time.Duration) {
	if db.cfg.Observe == nil {
		return
	}
	o := Commit{Changes: len(pending), Took: took}
	for _, p := range pending {
		o.Bytes += p.Bytes
	}
	db.cfg.Observe(o)
}
