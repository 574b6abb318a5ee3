//go:build unix

package datadir

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// openFlags keep a named pipe, put where a file was, from holding the process up.
const openFlags = syscall.O_NOFOLLOW | syscall.O_NONBLOCK

// Owner is the id of the user whom a file belongs to. It is false where files have no
// such owners.
func Owner(info os.FileInfo) (uid int, ok bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return int(st.Uid), true
}

// GiveTo gives an open file the owner and the group of another. Only root may give files
// away.
func GiveTo(f *os.File, of os.FileInfo) error {
	if st, ok := of.Sys().(*syscall.Stat_t); ok {
		return f.Chown(int(st.Uid), int(st.Gid))
	}
	return nil
}

// sync makes what was renamed in the directory durable.
func (d *Dir) sync() error {
	f, err := d.Handle()
	if err != nil {
		return err
	}
	err = f.Sync()
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTSUP) {
		err = nil // some file systems have no such thing
	}
	return errors.Join(err, f.Close())
}
