package store

import "golang.org/x/sys/windows"

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
