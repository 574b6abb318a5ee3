package kv

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

	"appview/internal/datadir"
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
func Compact(ctx context.Context, cfg Config, schema Schema) (before, after int64, err error) {
	cfg.ReadOnly = false
	db, err := prepare(cfg, schema)
	if err != nil {
		return 0, 0, err
	}
	fail := func(err error) error { return fmt.Errorf("compact %s: %w", db.cfg.Path, err) }
	if _, err := db.dir.Lstat(db.name()); err != nil { // or a new one would be made
		return 0, 0, fail(errors.Join(err, db.closeDir()))
	}
	if err := db.openFile(); err != nil { // and keep everybody else from it
		return 0, 0, fail(errors.Join(err, db.shut(err)))
	}
	before = db.info.Size()
	after, err = db.compact(ctx)
	if err != nil {
		return 0, 0, fail(errors.Join(err, db.shut(err)))
	}
	return before, after, nil
}

// compact leaves the file closed if it succeeds.
func (db *DB) compact(ctx context.Context) (after int64, err error) {
	to := db.name() + compactSuffix
	if err := db.dir.Remove(to); err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, fmt.Errorf("remove what an earlier attempt has left: %w", err)
	}
	err = guard(func() error {
		if err := db.bolt.View(db.compactable); err != nil {
			return err
		}
		// All of it: what a page has lost already would be gone for good.
		if err := db.Check(ctx); err != nil {
			return fmt.Errorf("%w: nothing was changed: restore a backup", err)
		}
		after, err = db.copyTo(ctx, to)
		return err
	})
	if err == nil && runtime.GOOS == "windows" { // where an open file cannot be replaced
		err = db.bolt.Close()
	}
	if err == nil {
		err = db.dir.Rename(to, db.name())
	}
	if err != nil {
		if errRemove := db.dir.Remove(to); !errors.Is(errRemove, os.ErrNotExist) {
			err = errors.Join(err, errRemove)
		}
		return 0, err
	}
	return after, db.shut(nil)
}

// compactable refuses a file of another version, and one for whose copy there is no
// room.
func (db *DB) compactable(tx *bbolt.Tx) error {
	if err := db.schema.current(tx); err != nil {
		return err
	}
	need := uint64(tx.Size()) - uint64(db.bolt.Stats().FreePageN*db.bolt.Info().PageSize) + compactSlack
	free, err := db.cfg.FreeSpace(db.dir.Path())
	if err == nil && free < need {
		return fmt.Errorf("%w: the copy needs up to %d MiB beside the file, %d MiB are free: nothing was changed",
			ErrDiskFull, need>>20+1, free>>20)
	}
	return nil
}

// sound proves the pages of a file, so that everything in it can be followed.
func (db *DB) sound(ctx context.Context, tx *Tx) error {
	c := &Checker{}
	err := db.pagesOf(tx.Tx).walk(ctx, c.Found)
	if len(c.findings) > 0 {
		return fmt.Errorf("%w: restore a backup", c.damage(err))
	}
	return err
}

// copyTo makes the copy, as short as it can be, with the owner and the mode of the
// original, and compares it.
func (db *DB) copyTo(ctx context.Context, name string) (size int64, err error) {
	var made os.FileInfo
	to, err := bbolt.Open(name, 0o600, &bbolt.Options{
		Timeout: time.Second, PageSize: db.bolt.Info().PageSize, FreelistType: bbolt.FreelistMapType,
		NoSync: true, // it is synced when it is complete
		OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
			f, err := db.dir.OpenFile(name, flag|os.O_CREATE|os.O_EXCL, mode)
			if err == nil {
				made, err = f.Stat()
			}
			return f, err
		},
	})
	if err != nil {
		return 0, err
	}
	err = bbolt.Compact(to, db.bolt, compactStep)
	if err == nil {
		err = to.View(func(tx *bbolt.Tx) error { size = tx.Size(); return nil })
	}
	if err := errors.Join(err, to.Close()); err != nil {
		return 0, err
	}
	if err := db.finishCopy(name, made, size); err != nil {
		return 0, err
	}
	return size, db.compare(ctx, name)
}

// finishCopy cuts off what bbolt has made the copy longer than it needs, gives it the owner
// and the mode of the original, and syncs it. made is the file that bbolt has written:
// whoever owns the directory may have put another under its name.
func (db *DB) finishCopy(name string, made os.FileInfo, size int64) (err error) {
	f, err := db.dir.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	switch {
	case err != nil:
		return err
	case !os.SameFile(info, made):
		return fmt.Errorf("%s: %w", f.Name(), datadir.ErrReplaced)
	}
	return errors.Join(f.Truncate(size), datadir.GiveTo(f, db.info), f.Chmod(db.info.Mode().Perm()), f.Sync())
}

// compare proves that a file is sound and holds what this one holds.
func (db *DB) compare(ctx context.Context, name string) (err error) {
	cfg := db.cfg
	cfg.Path, cfg.Dir, cfg.ReadOnly = filepath.Join(db.dir.Path(), name), db.dir, true
	copied, err := Open(cfg, db.schema)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, copied.Close()) }()
	var mine, its [sha256.Size]byte
	err = copied.View(ctx, func(tx *Tx) (err error) {
		if err := copied.sound(ctx, tx); err != nil {
			return err
		}
		its, err = digest(ctx, tx)
		return err
	})
	if err == nil {
		err = db.View(ctx, func(tx *Tx) (err error) { mine, err = digest(ctx, tx); return err })
	}
	if err == nil && mine != its {
		err = errors.New("the copy does not hold the same: nothing was changed")
	}
	return err
}

// digest stands for everything that a file holds: buckets with their sequences, keys
// and values, in order.
func digest(ctx context.Context, tx *Tx) (sum [sha256.Size]byte, err error) {
	h := sha256.New()
	err = tx.ForEach(func(name []byte, b *Bucket) error { return digestBucket(ctx, h, name, b) })
	h.Sum(sum[:0])
	return sum, err
}

func digestBucket(ctx context.Context, h hash.Hash, name []byte, b *Bucket) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	digestPart(h, 'b', name)
	digestPart(h, 's', NumberKey(b.Sequence()))
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
