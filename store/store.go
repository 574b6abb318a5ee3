package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sync/semaphore"
)

var (
	// ErrLocked says that another process has the file open.
	ErrLocked = errors.New("another appview process has the database open")
	// ErrDamaged says that the file is not a whole appview database.
	ErrDamaged = errors.New("the database is damaged")
)

const (
	// lockTimeout is how long Open waits for another process to let the file go.
	lockTimeout = 500 * time.Millisecond
	// pageSize is fixed when the file is made. Records of some hundred bytes pack
	// better into 8 KiB than into the system's 4.
	pageSize = 8 << 10
	// defaultReserve is the free disk that is left alone, so that the system and
	// the last commits have room.
	defaultReserve = 256 << 20
	// manyFreePages is from where on bbolt's map of free pages beats its array.
	manyFreePages = 100_000
)

// Config says where the file is and how it is written. Zero values mean the
// defaults.
type Config struct {
	Path       string
	FlushEvery time.Duration                    // how long a change may wait for company: 250 ms
	Reserve    uint64                           // free bytes on the disk to leave alone: 256 MiB
	FreeSpace  func(dir string) (uint64, error) // default: asks the system
	Now        func() time.Time                 // default: time.Now
	Log        *slog.Logger                     // default: slog.Default
	ReadOnly   bool                             // open for reading only, as check does
	Observe    func(Commit)                     // told of every commit, by the writer; must not wait for anything
	Hooks      Hooks                            // tests crash here
}

// Hooks are called around every commit. A hook that fails stops the store as a
// failed commit does.
type Hooks struct {
	BeforeCommit, AfterCommit func() error
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

// Store is an open database file.
type Store struct {
	cfg Config
	db  *bbolt.DB

	queue   chan change
	ends    chan change         // that end work, while the disk is full
	queued  *semaphore.Weighted // bytes of changes that are not committed yet
	closing sync.RWMutex        // held for reading while a change is queued
	closed  bool
	quit    chan struct{} // closed when Close begins
	stopped chan struct{} // closed when the writer has ended
	drained sync.WaitGroup

	quitting sync.Once
	purges   [][]byte // deletions that an earlier process has left

	tails tails

	denied  atomic.Pointer[denied]
	denying sync.Mutex // held while denied is changed
	uses    uses

	failure atomic.Pointer[error]
	failed  chan struct{} // closed with failure
	full    atomic.Bool
}

// Open opens the file, making it if it is not there, and brings it to the
// current schema. It fails with ErrLocked, ErrNewer or ErrDamaged where these
// apply.
func Open(cfg Config) (*Store, error) {
	if cfg.Path == "" {
		return nil, errors.New("open store: no path")
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
	db, err := openFile(cfg)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", cfg.Path, err)
	}
	s := &Store{
		cfg: cfg, db: db,
		queue:   make(chan change, queueLen),
		ends:    make(chan change, endsLen),
		queued:  semaphore.NewWeighted(maxQueuedBytes),
		quit:    make(chan struct{}),
		stopped: make(chan struct{}),
		failed:  make(chan struct{}),
	}
	if cfg.ReadOnly {
		s.closed = true
		close(s.stopped)
		if err := db.View(current); err != nil {
			return nil, errors.Join(fmt.Errorf("open %s: %w", cfg.Path, err), db.Close())
		}
		return s, nil
	}
	if err = migrate(db); err == nil {
		s.purges, err = openPurges(db)
	}
	if err == nil {
		var d denied
		d, err = loadDenied(db)
		s.denied.Store(&d)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", cfg.Path, err), db.Close())
	}
	go s.write()
	return s, nil
}

func openFile(cfg Config) (*bbolt.DB, error) {
	if err := checkSize(cfg.Path, cfg.ReadOnly); err != nil {
		return nil, err
	}
	opts := &bbolt.Options{
		Timeout: lockTimeout, PageSize: pageSize, InitialMmapSize: initialMmapSize,
		FreelistType: bbolt.FreelistArrayType, ReadOnly: cfg.ReadOnly, PreLoadFreelist: true,
	}
	db, err := bbolt.Open(cfg.Path, 0o600, opts)
	if err == nil && !cfg.ReadOnly {
		// bbolt counts its free pages when a write transaction ends.
		if tx, errTx := db.Begin(true); errTx == nil {
			err = tx.Rollback()
		}
		if err == nil && db.Stats().FreePageN > manyFreePages {
			opts.FreelistType = bbolt.FreelistMapType
			if err = db.Close(); err == nil {
				db, err = bbolt.Open(cfg.Path, 0o600, opts)
			}
		}
	}
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, ErrLocked
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrVersionMismatch), errors.Is(err, bolterrors.ErrChecksum):
		return nil, fmt.Errorf("%w: %w: restore a backup", ErrDamaged, err)
	}
	return db, err
}

// Close commits what is queued and closes the file.
func (s *Store) Close() error {
	s.quitting.Do(func() { close(s.quit) })
	s.closing.Lock()
	if !s.closed {
		s.closed = true
		close(s.queue)
	}
	s.closing.Unlock()
	<-s.stopped
	s.drained.Wait()
	if err := s.db.Close(); err != nil {
		return fmt.Errorf("close %s: %w", s.cfg.Path, err)
	}
	return nil
}

// Failed is closed when a write has failed. Nothing is written from then on, and
// the process should end: what is in the file is whole, but what could not be
// written is not in it.
func (s *Store) Failed() <-chan struct{} { return s.failed }

// Err is why the store has failed, or ErrClosed.
func (s *Store) Err() error {
	if err := s.failure.Load(); err != nil {
		return *err
	}
	return ErrClosed
}

func (s *Store) fail(err error) {
	s.failure.Store(&err)
	close(s.failed)
}

// DiskFull tells whether writes wait because less than the reserve is free.
func (s *Store) DiskFull() bool { return s.full.Load() }

// diskFull looks at the disk. Where the system cannot tell, it is not full.
func (s *Store) diskFull() bool {
	free, err := s.cfg.FreeSpace(filepath.Dir(s.cfg.Path))
	full := err == nil && free < s.cfg.Reserve
	if s.full.Swap(full) != full {
		if full {
			s.cfg.Log.Warn("disk is full: writes wait until there is room", "free_bytes", free, "reserve_bytes", s.cfg.Reserve)
		} else {
			s.cfg.Log.Info("disk has room again", "free_bytes", free)
		}
	}
	return full
}

// view runs f in a read transaction. A row that cannot be decoded is our own
// damage: it stops the store.
func (s *Store) view(ctx context.Context, f func(*bbolt.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.db.View(f); err != nil {
		if errors.Is(err, errRow) {
			s.cfg.Log.ErrorContext(ctx, "the database is damaged: run appview check, restore a backup", "err", err)
		}
		return err
	}
	return nil
}

// Size is the length of the file, and how much of it is free to be used again.
func (s *Store) Size() (file, free int64, err error) {
	info, err := os.Stat(s.cfg.Path)
	if err != nil {
		return 0, 0, fmt.Errorf("size of the database: %w", err)
	}
	return info.Size(), int64(s.db.Stats().FreeAlloc), nil
}
