package service

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"

	"appview/internal/datadir"
)

// The socket over which the commands of the same machine talk to the server of a data
// directory. It has a directory of its own, which only its owner enters: the data
// directory itself may be open to a group, or belong to somebody else.
const (
	SocketDir  = "run"
	SocketFile = "appview.sock"
	// maxSocketPath is the longest path of a socket that every system takes.
	maxSocketPath = 103
)

// localSocket listens on the socket of a data directory.
type localSocket struct {
	net.Listener
	dir    *datadir.Dir
	handle *os.File // of dir: the address may lead through it
	made   os.FileInfo
}

// listenLocal opens the socket of a data directory. Only one server has that
// directory's database open, so a socket that is there has been left by a process
// that was killed.
func listenLocal(ctx context.Context, data *datadir.Dir) (_ *localSocket, err error) {
	s := &localSocket{}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("listen on %s: %w", SocketOf(data.Path()), err), s.closeDir())
		}
	}()
	if s.dir, err = data.Subdir(SocketDir, 0o700); err != nil {
		return nil, err
	}
	if s.handle, err = s.dir.Handle(); err != nil {
		return nil, err
	}
	if err := s.secureDir(); err != nil {
		return nil, err
	}
	if err := removeSocket(s.dir); err != nil {
		return nil, err
	}
	path, err := socketPath(s.dir, s.handle)
	if err != nil {
		return nil, err
	}
	listen := net.ListenConfig{Control: restrictSocket}
	if s.Listener, err = listen.Listen(ctx, "unix", path); err != nil {
		return nil, withoutAddress(err)
	}
	if l, ok := s.Listener.(*net.UnixListener); ok {
		l.SetUnlinkOnClose(false) // the next process may have put its own there
	}
	s.made, err = s.dir.Lstat(SocketFile)
	return s, err
}

// secureDir lets nobody but its owner enter the socket's directory.
func (s *localSocket) secureDir() error {
	info, err := s.handle.Stat()
	if err != nil {
		return err
	}
	if owner, known := datadir.Owner(info); known && owner != os.Geteuid() {
		return fmt.Errorf("the directory belongs to user %d, and this is user %d: remove it", owner, os.Geteuid())
	}
	if runtime.GOOS == "windows" {
		return nil // the list of the data directory decides who may enter
	}
	if exact, err := datadir.SetMode(s.handle, 0o700); err != nil || !exact {
		return errors.Join(errors.New("the directory cannot be closed to others"), err)
	}
	return nil
}

// removeSocket removes a socket that a process has left.
func removeSocket(dir *datadir.Dir) error {
	switch info, err := dir.Lstat(SocketFile); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode()&fs.ModeSocket == 0 && runtime.GOOS != "windows": // where a socket has a mode of its own
		return errors.New("what is there is no socket: remove it")
	}
	return dir.Remove(SocketFile)
}

// Close closes the socket, and removes it unless another has taken its place.
func (s *localSocket) Close() error {
	err := s.Listener.Close()
	if there, errStat := s.dir.Lstat(SocketFile); errStat == nil && os.SameFile(there, s.made) {
		err = errors.Join(err, s.dir.Remove(SocketFile))
	}
	return errors.Join(err, s.closeDir())
}

func (s *localSocket) closeDir() (err error) {
	if s.handle != nil {
		err = s.handle.Close()
	}
	if s.dir != nil {
		err = errors.Join(err, s.dir.Close())
	}
	return err
}

// withoutAddress is an error of the network without the address, which here may lead
// through a descriptor.
func withoutAddress(err error) error {
	if op, is := errors.AsType[*net.OpError](err); is {
		return op.Err
	}
	return err
}

// SocketOf is the path of the socket of a data directory, as it is shown.
func SocketOf(dataDir string) string { return filepath.Join(dataDir, SocketDir, SocketFile) }

// socketPath is a path by which the system finds the socket of an open directory, also
// where its own path is longer than an address may be.
func socketPath(dir *datadir.Dir, handle *os.File) (string, error) {
	if path, ok := socketByHandle(handle); ok {
		return filepath.Join(path, SocketFile), nil
	}
	path := filepath.Join(dir.Path(), SocketFile)
	if len(path) > maxSocketPath {
		if wd, err := os.Getwd(); err == nil {
			if rel, err := filepath.Rel(wd, path); err == nil && len(rel) < len(path) {
				path = rel
			}
		}
	}
	if len(path) > maxSocketPath {
		return "", fmt.Errorf("the path has %d bytes, and the path of a socket may have %d: choose a shorter --data-dir", len(path), maxSocketPath)
	}
	return path, nil
}

// LocalError says why the server of a data directory cannot be talked to, and what to do.
type LocalError struct{ error }

func (e LocalError) Unwrap() error { return e.error }

// DialLocal connects to the server of a data directory. It first looks who listens:
// a key must not go to a stranger who has put a socket of his own there.
func DialLocal(ctx context.Context, dataDir string) (_ net.Conn, err error) {
	conn, err := dialSocket(ctx, dataDir)
	path := SocketOf(dataDir)
	switch {
	case errors.Is(err, fs.ErrNotExist), IsErrno(err, errRefused, wsaRefused):
		return nil, LocalError{fmt.Errorf("no server at %s: start one with appview serve on this --data-dir, or name one with --url", path)}
	case errors.Is(err, fs.ErrPermission):
		return nil, LocalError{fmt.Errorf("%s is open to the user that runs the server alone: be that user, or name the server with --url, and give its key with --key", path)}
	case err != nil:
		return nil, LocalError{fmt.Errorf("connect to %s: %w", path, err)}
	}
	return conn, nil
}

func dialSocket(ctx context.Context, dataDir string) (conn net.Conn, err error) {
	data, err := datadir.Open(dataDir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, data.Close()) }()
	dir, err := data.OpenSubdir(SocketDir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	info, err := dir.Lstat(SocketFile)
	if err != nil {
		return nil, err
	}
	if err := trustSocket(data, info); err != nil {
		return nil, err
	}
	handle, err := dir.Handle()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, handle.Close()) }()
	path, err := socketPath(dir, handle)
	if err != nil {
		return nil, err
	}
	if conn, err = new(net.Dialer).DialContext(ctx, "unix", path); err != nil {
		return nil, withoutAddress(err)
	}
	if peer, known := peerOf(conn); known {
		if err := trustOwner(data, peer); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
	}
	return conn, nil
}

// trustSocket refuses what is no socket of somebody whom this user trusts.
func trustSocket(data *datadir.Dir, info os.FileInfo) error {
	owner, known := datadir.Owner(info)
	if !known {
		return nil
	}
	if info.Mode()&fs.ModeSocket == 0 {
		return errors.New("it is no socket: remove it, and start the server again")
	}
	return trustOwner(data, owner)
}

// trustOwner refuses a server that runs as a user whom a key must not go to.
func trustOwner(data *datadir.Dir, owner int) error {
	if owner == 0 || isTrusted(data, owner) {
		return nil
	}
	return fmt.Errorf("user %d listens there, who is neither this user nor root: no key is sent to it: name the server with --url", owner)
}
