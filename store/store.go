package store

import (
	"context"
	"io"
	"log/slog"
	"time"

	"appview/internal/datadir"
	"appview/store/admin"
	"appview/store/index"
	"appview/store/jobs"
	"appview/store/kv"
)

// Errors of the file.
var (
	ErrLocked   = kv.ErrLocked
	ErrDamaged  = kv.ErrDamaged
	ErrNewer    = kv.ErrNewer
	ErrOlder    = kv.ErrOlder
	ErrClosed   = kv.ErrClosed
	ErrDiskFull = kv.ErrDiskFull
	ErrNotFound = kv.ErrNotFound
	ErrExists   = kv.ErrExists
	ErrTooMany  = kv.ErrTooMany
)

type (
	// Hooks are called around every commit.
	Hooks = kv.Hooks
	// Commit is a transaction of the writer, as it is measured.
	Commit = kv.Commit
)

// Config says where the file is and how it is written. Zero values mean the defaults.
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

	MaxAccountBytes int64 // what one account may take of the file: index.DefaultMaxAccountBytes
}

// file is what the file itself is to know.
func (c Config) file() kv.Config {
	return kv.Config{
		Path: c.Path, Dir: c.Dir, FlushEvery: c.FlushEvery, Reserve: c.Reserve, FreeSpace: c.FreeSpace, Now: c.Now, Log: c.Log,
		ReadOnly: c.ReadOnly, Observe: c.Observe, Hooks: c.Hooks,
	}
}

// Store is an open database file, by its parts.
type Store struct {
	Admin       *admin.Admin      // API keys and the audit log
	Index       *index.Index      // records, repos, the deny list
	Jobs        *jobs.Jobs        // from their request to their end
	Work        *jobs.Work        // that jobs still owe
	Collections *jobs.Collections // the tracked ones, and how fresh the index is there

	db *kv.DB
}

// version is the format of the files that this program writes.
const version = 10

// schema is what a file of ours consists of.
func schema(ix *index.Index) kv.Schema { return kv.Join(version, admin.Part(), ix.Part(), jobs.Part()) }

// Open opens the file, making it if it is not there, and brings it to the
// current schema. It fails with ErrLocked, ErrNewer or ErrDamaged where these
// apply.
func Open(cfg Config) (*Store, error) {
	s := &Store{Index: index.New(cfg.MaxAccountBytes)}
	var err error
	if s.db, err = kv.Open(cfg.file(), schema(s.Index)); err != nil {
		return nil, err
	}
	s.Admin = admin.New(s.db)
	s.Index.Use(s.db)
	s.Jobs, s.Work, s.Collections = jobs.New(s.db, s.Index)
	return s, nil
}

// Close commits what is queued and closes the file.
func (s *Store) Close() error { return s.db.Close(s.Admin.FlushUses()...) }

// Compact gives back to the disk what is free in the file of a stopped server. It
// returns the lengths before and after.
func Compact(ctx context.Context, cfg Config) (before, after int64, err error) {
	return kv.Compact(ctx, cfg.file(), schema(index.New(0)))
}

// Backup writes a copy of the file as it is at one moment. begin is called once,
// before the first byte, with the length of the copy. It holds one read transaction
// open until it returns: the file cannot reuse pages meanwhile, so that neither may
// take long.
func (s *Store) Backup(ctx context.Context, begin func(size int64) error, w io.Writer) error {
	return s.db.Backup(ctx, begin, w)
}

// Check proves that the file is in order: every page, every record against its CID,
// its log entry and its repo, every index row against the row it stands for, every
// count against what it counts, and every job's counters against its work. It joins
// all findings into one error, which is ErrDamaged.
func (s *Store) Check(ctx context.Context) error { return s.db.Check(ctx) }

// Failed is closed when a write has failed, or when the file has turned out to be
// damaged. Nothing is written from then on, and the process should end: what could
// not be written is not in the file, and nobody may take it to be.
func (s *Store) Failed() <-chan struct{} { return s.db.Failed() }

// Err is why the store has failed, or ErrClosed.
func (s *Store) Err() error { return s.db.Err() }

// DiskFull reports whether writes wait because less than the reserve is free.
func (s *Store) DiskFull() bool { return s.db.DiskFull() }

// Flush has the changes that were queued be committed without waiting for company:
// whoever could bring more waits for them.
func (s *Store) Flush() { s.db.Flush() }

// Load is what the store has before it.
type Load struct {
	Queued   int    // changes that wait for the writer
	IndexLag uint64 // changes that the key index of a collection is behind, at most
	FreeDisk uint64 // bytes on the disk that holds the file
	Reads    int    // transactions that are open, during which the file cannot reuse pages
}

// Load tells what the store has before it.
func (s *Store) Load(ctx context.Context) (Load, error) {
	free, err := s.db.FreeDisk()
	if err != nil {
		return Load{}, err
	}
	l := Load{Queued: s.db.Queued(), FreeDisk: free, Reads: s.db.OpenReads()}
	l.IndexLag, err = s.Index.MaxLag(ctx)
	return l, err
}

// Stats is what the file holds, by counts that are kept.
func (s *Store) Stats(ctx context.Context) (jobs.Stats, error) { return s.Collections.Stats(ctx) }

// Prune deletes a bounded step of what is kept no longer: old notes of deleted records, the
// work rows of jobs that ended long ago, jobs, old events, and old replies. It returns true
// when nothing is left to delete.
func (s *Store) Prune(ctx context.Context) (bool, error) { return s.db.Prune(ctx) }
