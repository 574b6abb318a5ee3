package kv

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

// initialMmapSize is none: Windows would make the file as long as its map.
const initialMmapSize = 0

// freeSpace is what an ordinary user may still write to the disk of dir.
func freeSpace(dir string) (free uint64, err error) {
	p, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return 0, err
	}
	err = windows.GetDiskFreeSpaceEx(p, &free, nil, nil)
	return free, err
}

// isNoSpace reports whether a write failed for want of room.
func isNoSpace(err error) bool {
	return errors.Is(err, windows.ERROR_DISK_FULL) || errors.Is(err, windows.ERROR_HANDLE_DISK_FULL) ||
		errors.Is(err, windows.ERROR_DISK_QUOTA_EXCEEDED)
}

// unlock gives the lock on an open file back: closing it does.
func unlock(*os.File) error { return nil }
