package store

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"go.etcd.io/bbolt"
)

const (
	// compactStep bounds the bytes that are copied in one transaction.
	compactStep = 4 << 20
	// compactSlack is what a copy may need beside the pages that are in use: bbolt
	// makes a file longer in steps of 16 MiB, and has some pages free in between.
	compactSlack = 64 << 20
	// compactSuffix names the copy while it is made.
	compactSuffix = ".compact"
)

// Compact gives back to the disk what is free in the file of a stopped server: it
// copies the file without it, proves that the copy holds the same, and puts it in
// the file's place. Until then, and if it fails, the file is as it was. It returns
// the lengths before and after. Where the disk has no room for the copy, it is
// ErrDiskFull.
func Compact(ctx context.Context, cfg Config) (before, after int64, err error) {
	// The place of the file, not of a link to it.
	if cfg.Path, err = filepath.EvalSymlinks(cfg.Path); err != nil {
		return 0, 0, err
	}
	cfg.ReadOnly = false
	s, err := prepare(cfg)
	if err != nil {
		return 0, 0, err
	}
	fail := func(err error) error { return fmt.Errorf("compact %s: %w", s.cfg.Path, err) }
	if err := s.openFile(); err != nil { // and keep everybody else from it
		return 0, 0, fail(errors.Join(err, s.shut(err)))
	}
	before = s.info.Size()
	after, err = s.compact(ctx)
	if err != nil {
		return 0, 0, fail(errors.Join(err, s.shut(err)))
	}
	return before, after, nil
}

// compact leaves the file closed if it succeeds.
func (s *Store) compact(ctx context.Context) (after int64, err error) {
	to := s.cfg.Path + compactSuffix
	if err := os.Remove(to); err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, fmt.Errorf("remove what an earlier attempt has left: %w", err)
	}
	err = guard(func() error {
		if err := s.db.View(s.compactable); err != nil {
			return err
		}
		// All of it: what a page has lost already would be gone for good.
		if err := s.Check(ctx); err != nil {
			return fmt.Errorf("%w: nothing was changed: restore a backup", err)
		}
		after, err = s.copyTo(ctx, to)
		return err
	})
	if err == nil {
		err = keepOwner(to, s.info)
	}
	if err == nil && runtime.GOOS == "windows" { // where an open file cannot be replaced
		err = s.db.Close()
	}
	if err == nil {
		err = Replace(to, s.cfg.Path)
	}
	if err != nil {
		if errRemove := os.Remove(to); !errors.Is(errRemove, os.ErrNotExist) {
			err = errors.Join(err, errRemove)
		}
		return 0, err
	}
	return after, s.db.Close()
}

// compactable refuses a file of another version, and one for whose copy there is no
// room.
func (s *Store) compactable(tx *bbolt.Tx) error {
	if err := current(tx); err != nil {
		return err
	}
	need := uint64(tx.Size()) - uint64(s.db.Stats().FreePageN*s.db.Info().PageSize) + compactSlack
	free, err := s.cfg.FreeSpace(filepath.Dir(s.cfg.Path))
	if err == nil && free < need {
		return fmt.Errorf("%w: the copy needs up to %d MiB beside the file, %d MiB are free: nothing was changed",
			ErrDiskFull, need>>20+1, free>>20)
	}
	return nil
}

// sound proves the pages of a file, so that everything in it can be followed.
func (s *Store) sound(ctx context.Context, tx *bbolt.Tx) error {
	c := &checker{}
	err := s.pagesOf(tx).walk(ctx, c.found)
	if len(c.findings) > 0 {
		return fmt.Errorf("%w: restore a backup", c.damage(err))
	}
	return err
}

// copyTo makes the copy, as short as it can be, and compares it.
func (s *Store) copyTo(ctx context.Context, path string) (size int64, err error) {
	to, err := bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout: time.Second, PageSize: s.db.Info().PageSize, FreelistType: bbolt.FreelistMapType,
		NoSync: true, // it is synced when it is complete
	})
	if err != nil {
		return 0, err
	}
	err = bbolt.Compact(to, s.db, compactStep)
	if err == nil {
		err = to.View(func(tx *bbolt.Tx) error { size = tx.Size(); return nil })
	}
	if err := errors.Join(err, to.Close()); err != nil {
		return 0, err
	}
	if err := os.Truncate(path, size); err != nil { // bbolt has made it longer than it needs
		return 0, err
	}
	return size, s.compare(ctx, path)
}

// compare proves that a file is sound and holds what this one holds.
func (s *Store) compare(ctx context.Context, path string) (err error) {
	cfg := s.cfg
	cfg.Path, cfg.ReadOnly = path, true
	copied, err := Open(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, copied.Close()) }()
	var mine, its [sha256.Size]byte
	err = copied.view(ctx, func(tx *bbolt.Tx) (err error) {
		if err := copied.sound(ctx, tx); err != nil {
			return err
		}
		its, err = digest(ctx, tx)
		return err
	})
	if err == nil {
		err = s.view(ctx, func(tx *bbolt.Tx) (err error) { mine, err = digest(ctx, tx); return err })
	}
	if err == nil && mine != its {
		err = errors.New("the copy does not hold the same: nothing was changed")
	}
	return err
}

// digest stands for everything that a file holds: buckets with their sequences, keys
// and values, in order.
func digest(ctx context.Context, tx *bbolt.Tx) (sum [sha256.Size]byte, err error) {
	h := sha256.New()
	err = tx.ForEach(func(name []byte, b *bbolt.Bucket) error { return digestBucket(ctx, h, name, b) })
	h.Sum(sum[:0])
	return sum, err
}

func digestBucket(ctx context.Context, h hash.Hash, name []byte, b *bbolt.Bucket) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	digestPart(h, 'b', name)
	digestPart(h, 's', u64Key(b.Sequence()))
	err := b.ForEach(func(k, v []byte) error {
		if v == nil {
			return digestBucket(ctx, h, k, b.Bucket(k))
		}
		digestPart(h, 'k', k)
		digestPart(h, 'v', v)
		return nil
	})
	digestPart(h, 'e', nil)
	return err
}

// digestPart adds a part so that it cannot be taken for another, or for two. A hash
// never fails.
func digestPart(h hash.Hash, kind byte, part []byte) {
	var head [9]byte
	head[0] = kind
	binary.BigEndian.PutUint64(head[1:], uint64(len(part)))
	_, _ = h.Write(head[:])
	_, _ = h.Write(part)
}
