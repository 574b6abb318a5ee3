//go:build unix

package store

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// initialMmapSize is address space, not memory. A file that outgrows its map is
// mapped anew, for which bbolt waits until no read is going on.
const initialMmapSize = mmapSize

// freeSpace is what an ordinary user may still write to the disk of dir.
func freeSpace(dir string) (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return uint64(st.Bavail) * uint64(st.Bsize), nil //nolint:unconvert // the types differ between systems
}

// noSpace tells whether a write failed for want of room.
func noSpace(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// unlock gives the lock on an open file back. Closing it does not, as long as it is
// mapped.
func unlock(f *os.File) error { return unix.Flock(int(f.Fd()), unix.LOCK_UN) }

// syncDir makes what was renamed in a directory last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTSUP) {
		err = nil // some file systems have no such thing
	}
	return errors.Join(err, d.Close())
}

// keepOwner gives a file the owner and the mode of the one that it will replace.
func keepOwner(path string, of os.FileInfo) error {
	if err := os.Chmod(path, of.Mode().Perm()); err != nil {
		return err
	}
	return GiveTo(path, of)
}

// GiveTo gives a file the owner of another. Only root may give files away.
func GiveTo(path string, of os.FileInfo) error {
	if st, ok := of.Sys().(*syscall.Stat_t); ok {
		return os.Chown(path, int(st.Uid), int(st.Gid))
	}
	return nil
}
