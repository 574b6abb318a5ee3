//go:build unix

package kv

import (
	"errors"
	"os"

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

// isNoSpace reports whether a write failed for want of room.
func isNoSpace(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// unlock gives the lock on an open file back. Closing it does not, as long as it is
// mapped.
func unlock(f *os.File) error { return unix.Flock(int(f.Fd()), unix.LOCK_UN) }
