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

	"appview/internal/datadir"
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
	// skimTime is how long Open may look at pages before it goes on without.
	skimTime = time.Second
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

// Hooks are called around every commit. A hook that fails stops the store as a
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

func (h Hooks) making(pending []change, results []error) {
	if h.Making == nil {
		return
	}
	for i, c := range pending {
		if results[i] == nil || errors.Is(results[i], errAgain) {
			h.Making(c.op)
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

// Store is an open database file.
type Store struct {
	cfg  Config
	db   *bbolt.DB
	dir  *datadir.Dir // of Path
	file *os.File     // of db
	info os.FileInfo  // of file

	queue   chan change
	ends    chan change         // that end work, while the disk is full
	hurry   chan struct{}       // commit what there is
	queued  *semaphore.Weighted // bytes of changes that are not committed yet
	closing sync.RWMutex        // held for reading while a change is queued
	closed  bool
	quit    chan struct{} // closed when Close begins
	stopped chan struct{} // closed when the writer has ended
	drained sync.WaitGroup

	quitting sync.Once
	purges   [][]byte // deletions that an earlier process has left

	tails tails

	clock clock // of the writer

	denied  atomic.Pointer[denied]
	denying sync.Mutex // held while denied is changed
	uses    uses

	failing sync.Once
	failure atomic.Pointer[error]
	failed  chan struct{} // closed with failure
	full    atomic.Bool
	cramped atomic.Bool // changes are held because a commit has found no room
}

// Open opens the file, making it if it is not there, and brings it to the
// current schema. It fails with ErrLocked, ErrNewer or ErrDamaged where these
// apply.
func Open(cfg Config) (*Store, error) {
	s, err := prepare(cfg)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if err := s.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", s.cfg.Path, err), s.shut(err))
	}
	if s.cfg.ReadOnly {
		s.closed = true
		close(s.stopped)
		return s, nil
	}
	go s.write()
	return s, nil
}

// prepare makes a store of which nothing is open yet.
func prepare(cfg Config) (*Store, error) {
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
	return &Store{
		cfg:     cfg,
		dir:     dir,
		queue:   make(chan change, queueLen),
		ends:    make(chan change, endsLen),
		hurry:   make(chan struct{}, 1),
		queued:  semaphore.NewWeighted(maxQueuedBytes),
		quit:    make(chan struct{}),
		stopped: make(chan struct{}),
		failed:  make(chan struct{}),
	}, nil
}

func (s *Store) open() error {
	if err := s.openFile(); err != nil {
		return err
	}
	return guard(func() error {
		if err := s.db.View(s.skim); err != nil {
			return err
		}
		if s.cfg.ReadOnly {
			return s.db.View(current)
		}
		err := s.migrate()
		if err == nil {
			err = s.db.View(current)
		}
		if err == nil {
			s.purges, err = openPurges(s.db)
		}
		if err == nil {
			err = s.db.View(s.loadDenied)
		}
		return err
	})
}

// skim refuses a file in which bbolt would run in a circle. It gives up where that
// takes long, on a slow disk that has none of the file in memory yet: to be up again
// soon is worth more than to meet the worst of damage early.
func (s *Store) skim(tx *bbolt.Tx) error {
	ctx, cancel := context.WithTimeout(context.Background(), skimTime)
	defer cancel()
	c := &checker{}
	err := s.pagesOf(tx).skim(ctx, c.found)
	if len(c.findings) > 0 {
		return fmt.Errorf("%w: restore a backup", c.damage(nil))
	}
	if err != nil {
		s.cfg.Log.Warn("the pages of the database were not all looked at, which took too long: appview check does so", "took", skimTime)
	}
	return nil
}

// openTries bounds how often a file is opened that is replaced meanwhile.
const openTries = 3

func (s *Store) openFile() error {
	for try := 1; ; try++ {
		if err := s.inspect(); err != nil {
			return err
		}
		if err := s.openBolt(); err != nil {
			return err
		}
		// Compaction, or somebody who restores a backup, may have put another file
		// there before this one was locked.
		err := s.inPlace()
		if err == nil {
			return nil
		}
		if try == openTries {
			return err
		}
		if err := s.db.Close(); err != nil {
			return err
		}
	}
}

// openBolt opens the file and notes it.
func (s *Store) openBolt() error {
	opts := &bbolt.Options{
		Timeout: lockTimeout, PageSize: pageSize, InitialMmapSize: initialMmapSize,
		FreelistType: bbolt.FreelistArrayType, ReadOnly: s.cfg.ReadOnly, PreLoadFreelist: true,
		OpenFile: func(name string, flag int, mode os.FileMode) (f *os.File, err error) {
			f, err = s.dir.OpenFile(filepath.Base(name), flag, mode)
			s.file = f
			return f, err
		},
	}
	err := guard(func() (err error) {
		if s.db, err = bbolt.Open(s.cfg.Path, 0o600, opts); err != nil || s.cfg.ReadOnly {
			return err
		}
		// bbolt counts its free pages when a write transaction ends.
		tx, err := s.db.Begin(true)
		if err == nil {
			err = tx.Rollback()
		}
		if err == nil && s.db.Stats().FreePageN > manyFreePages {
			opts.FreelistType = bbolt.FreelistMapType
			if err = s.db.Close(); err == nil {
				s.db, err = bbolt.Open(s.cfg.Path, 0o600, opts)
			}
		}
		return err
	})
	switch {
	case errors.Is(err, ErrDamaged):
		return fmt.Errorf("%w: restore a backup", err)
	case err != nil:
		s.file = nil // bbolt has closed it
	}
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return ErrLocked
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrVersionMismatch), errors.Is(err, bolterrors.ErrChecksum):
		return fmt.Errorf("%w: %w: restore a backup", ErrDamaged, err)
	case err != nil:
		return err
	}
	s.info, err = s.file.Stat()
	return err
}

// inPlace fails when the file is no longer where it was opened. What is written then
// is lost with the process.
func (s *Store) inPlace() error {
	there, err := os.Lstat(s.cfg.Path) // by its path: the directory may have been moved as well
	switch {
	case errors.Is(err, os.ErrNotExist):
		return errors.New("the file was removed, or moved away, while it was open: put it back, or restore a backup, and start again")
	case err == nil && !os.SameFile(there, s.info):
		return errors.New("the file was replaced while it was open: start again, with the one that is to be used in its place")
	}
	return nil // or it cannot be told
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
	if err := s.shut(s.damaged()); err != nil {
		return fmt.Errorf("close %s: %w", s.cfg.Path, err)
	}
	return nil
}

// shut closes the file. A panic within bbolt may have left its locks held, for which
// its own Close would wait for ever: then its map stays until the process ends.
func (s *Store) shut(why error) error {
	_, broken := errors.AsType[*panicked](why)
	var err error
	switch {
	case s.file == nil:
	case broken:
		err = errors.Join(unlock(s.file), s.file.Close())
	default:
		err = s.db.Close()
	}
	return errors.Join(err, s.closeDir())
}

// name is the file's, in its directory.
func (s *Store) name() string { return filepath.Base(s.cfg.Path) }

// closeDir closes the directory if it was opened with the file.
func (s *Store) closeDir() error {
	if s.cfg.Dir != nil {
		return nil
	}
	return s.dir.Close()
}

// Failed is closed when a write has failed, or when the file has turned out to be
// damaged. Nothing is written from then on, and the process should end: what could
// not be written is not in the file, and nobody may take it to be.
func (s *Store) Failed() <-chan struct{} { return s.failed }

// Err is why the store has failed, or ErrClosed.
func (s *Store) Err() error {
	if err := s.failure.Load(); err != nil {
		return *err
	}
	return ErrClosed
}

// fail stops the store for good.
func (s *Store) fail(err error) {
	s.failing.Do(func() {
		if errors.Is(err, ErrDamaged) {
			err = fmt.Errorf("%w: %s", err, advice)
		}
		if p, ok := errors.AsType[*panicked](err); ok {
			s.cfg.Log.Debug("where damage was met", "err", err, "stack", string(p.stack))
		}
		s.failure.Store(&err)
		close(s.failed)
	})
}

// damaged is why nothing of the file is to be believed any more, nil if it is.
func (s *Store) damaged() error {
	if err := s.failure.Load(); err != nil && errors.Is(*err, ErrDamaged) {
		return *err
	}
	return nil
}

// DiskFull tells whether writes wait because less than the reserve is free.
func (s *Store) DiskFull() bool { return s.full.Load() }

// diskFull tells whether the disk is full now.
func (s *Store) diskFull() bool {
	s.look()
	return s.full.Load()
}

// look looks at the disk, and tells whether less than the reserve is free. Where the
// system cannot tell, it is not. The disk counts as full, too, while changes are held
// because a commit has found no room, whatever the system says: a quota may be used up.
func (s *Store) look() (low bool) {
	free, err := s.cfg.FreeSpace(s.dir.Path())
	low = err == nil && free < s.cfg.Reserve
	full := low || s.cramped.Load()
	if s.full.Swap(full) != full {
		if full {
			s.cfg.Log.Warn("disk is full: writes wait until there is room", "free_bytes", free, "reserve_bytes", s.cfg.Reserve)
		} else {
			s.cfg.Log.Info("disk has room again", "free_bytes", free)
		}
	}
	return low
}

// view runs f in a read transaction. A row that cannot be decoded, or a page that
// leads astray, is our own damage: it stops the store, and nothing is answered from
// it any more.
func (s *Store) view(ctx context.Context, f func(*bbolt.Tx) error) error {
	if err := errors.Join(ctx.Err(), s.damaged()); err != nil {
		return err
	}
	err := guard(func() error { return s.db.View(f) })
	if errors.Is(err, ErrDamaged) {
		s.fail(err)
	}
	return err
}

// size is the length of the file, and how much of it is free: what was used and is to
// be used again, and the end of the file, which bbolt makes longer in large steps
// before there is anything to put there.
func (s *Store) size(tx *bbolt.Tx) (file, free int64, err error) {
	info, err := s.file.Stat()
	if err != nil {
		return 0, 0, fmt.Errorf("size of the database: %w", err)
	}
	return info.Size(), int64(s.db.Stats().FreeAlloc) + max(info.Size()-tx.Size(), 0), nil
}
