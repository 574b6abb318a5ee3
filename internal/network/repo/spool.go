package repo

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"runtime"
)

// Spool makes an empty file for a repo that is too large for memory. Nothing must be
// left of it when it is closed, or when the process has ended.
type Spool func() (*os.File, error)

// SpoolDir is a directory that files of large repos are made in.
type SpoolDir interface {
	OpenFile(name string, flag int, perm os.FileMode) (*os.File, error)
	Remove(name string) error
	FS() fs.FS
}

// The name of such a file, for the moment in which it has one.
const (
	spoolPrefix = "repo-"
	spoolSuffix = ".car.tmp"
)

// removesLate says that a file can be removed only when it is closed.
const removesLate = runtime.GOOS == "windows"

// SpoolFile makes a file in a directory that is gone when it is closed, or, where open
// files cannot be removed, when the repo is.
func SpoolFile(dir SpoolDir) (*os.File, error) {
	name := spoolPrefix + rand.Text() + spoolSuffix
	f, err := dir.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil || removesLate {
		return f, err
	}
	if err := dir.Remove(name); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// spoolInTemp makes a file in the system's directory for such.
func spoolInTemp() (*os.File, error) {
	dir, err := os.OpenRoot(os.TempDir())
	if err != nil {
		return nil, err
	}
	f, err := SpoolFile(dir)
	return f, errors.Join(err, dir.Close())
}

// RemoveSpooled removes what a process that was killed may have left in a directory,
// which must be no other process's.
func RemoveSpooled(dir SpoolDir) error {
	left, err := fs.Glob(dir.FS(), spoolPrefix+"*"+spoolSuffix)
	if err != nil {
		return fmt.Errorf("look for files of large repos: %w", err)
	}
	for _, name := range left {
		if err := dir.Remove(path.Base(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove what was left of a large repo: %w", err)
		}
	}
	return nil
}

// closeSpool closes a file of a Spool. Nothing in it is wanted any more.
func closeSpool(f *os.File) {
	_ = f.Close()
	if removesLate {
		_ = os.Remove(f.Name())
	}
}
