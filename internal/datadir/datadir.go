// Package datadir opens the files of one directory through one handle, and never by
// way of a link.
//
// The directory may belong to somebody else than the user of this process, as it does
// when root compacts the database of a service. Whoever owns it may put a link, a named
// pipe or a device under any name in it, at any moment. So a name is opened only where
// it is a regular file, new files are created exclusively, and owner and mode are
// changed by descriptor only. The path to the directory is the operator's own, and may
// hold links.
package datadir

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

var (
	// ErrLink says that a name is a symbolic link.
	ErrLink = errors.New("it is a link, and links are not followed here")
	// ErrNotRegular says that a name is a directory, a device, a pipe or a socket.
	ErrNotRegular = errors.New("it is no regular file")
	// ErrReplaced says that a name led to another file a moment later.
	ErrReplaced = errors.New("it was replaced while it was opened")
)

// Dir is an open directory.
type Dir struct{ root *os.Root }

// Open opens a directory. Its path may hold links.
func Open(path string) (*Dir, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	return &Dir{root: root}, nil
}

// Path is the path that the directory was opened by.
func (d *Dir) Path() string { return d.root.Name() }

// Close closes the directory. Files that were opened in it stay open.
func (d *Dir) Close() error { return d.root.Close() }

// FS is the directory for reading.
func (d *Dir) FS() fs.FS { return d.root.FS() }

// Lstat describes what stands under a name, a link as a link.
func (d *Dir) Lstat(name string) (os.FileInfo, error) { return d.root.Lstat(name) }

// Remove removes a file, or the link that stands under its name.
func (d *Dir) Remove(name string) error { return d.root.Remove(name) }

// OpenFile opens a regular file. Flags and mode are those of os.OpenFile. A file that is
// not there yet is created exclusively: whoever puts another in its place at that moment
// makes it fail.
func (d *Dir) OpenFile(name string, flag int, perm os.FileMode) (*os.File, error) {
	there, err := d.root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist) && flag&os.O_CREATE != 0:
		return d.root.OpenFile(name, flag|os.O_EXCL, perm)
	case err != nil:
		return nil, err
	case flag&os.O_EXCL != 0:
		return nil, d.fail(name, fs.ErrExist)
	}
	if err := regular(there); err != nil {
		return nil, d.fail(name, err)
	}
	// What is cut short is cut by descriptor, after the comparison.
	f, err := d.root.OpenFile(name, flag&^(os.O_CREATE|os.O_TRUNC)|openFlags, 0)
	if err != nil {
		return nil, err
	}
	opened, err := f.Stat()
	if err == nil && !os.SameFile(there, opened) {
		err = d.fail(name, ErrReplaced)
	}
	if err == nil && flag&os.O_TRUNC != 0 {
		err = f.Truncate(0)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (d *Dir) fail(name string, err error) error {
	return &fs.PathError{Op: "open", Path: filepath.Join(d.Path(), name), Err: err}
}

func regular(info os.FileInfo) error {
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		return ErrLink
	case !info.Mode().IsRegular():
		return ErrNotRegular
	}
	return nil
}

// ReadFile reads a regular file of at most so many bytes, and describes the very file
// that was read.
func (d *Dir) ReadFile(name string, limit int64) (data []byte, info os.FileInfo, err error) {
	f, err := d.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if info, err = f.Stat(); err != nil {
		return nil, nil, err
	}
	data, err = io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s is longer than %d bytes", f.Name(), limit)
	}
	return data, info, err
}

// partSuffix is followed by a random text in the name of a file that is not complete yet.
const partSuffix = ".part-"

// Replace writes a file, readable by the owner alone, that appears under its name only
// when it is complete: whoever looks, and whatever crashes, finds the old file or the
// new one. A link under the name is replaced, not followed. fill must not close the file.
func (d *Dir) Replace(name string, fill func(*os.File) error) (err error) {
	if info, err := d.root.Lstat(name); err == nil && !info.Mode().IsRegular() && info.Mode()&fs.ModeSymlink == 0 {
		return d.fail(name, ErrNotRegular) // a device would be gone, and a file in its place
	}
	part := name + partSuffix + rand.Text()
	f, err := d.root.OpenFile(part, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.root.Remove(part))
		}
	}()
	if err := errors.Join(fill(f), f.Sync(), f.Close()); err != nil {
		return err
	}
	return d.Rename(part, name)
}

// RemoveParts removes what processes that were killed have left of writing a file by
// Replace. Nobody may be writing it.
func (d *Dir) RemoveParts(name string) error {
	entries, err := fs.ReadDir(d.FS(), ".")
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), name+partSuffix) {
			errs = append(errs, d.root.Remove(e.Name()))
		}
	}
	return errors.Join(errs...)
}

// Rename moves a file that is written and synced to a name where another may be, and
// makes the move durable.
func (d *Dir) Rename(from, to string) error {
	if err := d.root.Rename(from, to); err != nil {
		return err
	}
	if err := d.sync(); err != nil {
		return fmt.Errorf("sync %s: %w", d.Path(), err)
	}
	return nil
}

// Subdir opens a directory in this one that nobody but its owner may enter, and makes
// it if it is not there.
func (d *Dir) Subdir(name string, perm os.FileMode) (*Dir, error) {
	if err := d.root.Mkdir(name, perm); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return d.OpenSubdir(name)
}

// OpenSubdir opens a directory in this one, which must not be a link.
func (d *Dir) OpenSubdir(name string) (*Dir, error) {
	there, err := d.root.Lstat(name)
	switch {
	case err != nil:
		return nil, err
	case there.Mode()&fs.ModeSymlink != 0:
		return nil, d.fail(name, ErrLink)
	}
	root, err := d.root.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	sub := &Dir{root: root}
	opened, err := sub.Stat()
	if err == nil && !os.SameFile(there, opened) {
		err = d.fail(name, ErrReplaced)
	}
	if err != nil {
		return nil, errors.Join(err, sub.Close())
	}
	return sub, nil
}

// Stat describes the directory itself.
func (d *Dir) Stat() (os.FileInfo, error) { return d.root.Stat(".") }

// Handle opens the directory as a file, for its descriptor.
func (d *Dir) Handle() (*os.File, error) { return d.root.Open(".") }

// SetMode sets the mode of an open file or directory, and reports whether it is that
// now: some file systems take every mode, and keep none.
func SetMode(f *os.File, perm os.FileMode) (bool, error) {
	info, err := f.Stat()
	if err != nil || info.Mode().Perm() == perm {
		return err == nil, err
	}
	if err := f.Chmod(perm); err != nil {
		return false, err
	}
	info, err = f.Stat()
	return err == nil && info.Mode().Perm() == perm, err
}
