package cmd

import (
	"errors"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"appview/cmd/service"
	"appview/internal/datadir"
)

// leaveSocket leaves a socket in a data directory, as a process does that was killed.
func leaveSocket(t *testing.T, dir string) {
	t.Helper()
	l := listenAt(t, dir)
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(service.SocketOf(dir)); err != nil {
		t.Fatal(err)
	}
}

// listenAt listens on the socket of a data directory.
func listenAt(t *testing.T, dir string) *net.UnixListener {
	t.Helper()
	path := service.SocketOf(dir)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// hears serves a listener, and counts what is asked.
func hears(t *testing.T, l net.Listener) (asked chan *http.Request) {
	t.Helper()
	asked = make(chan *http.Request, 10)
	hs := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked <- r })}
	go func() { _ = hs.Serve(l) }()
	t.Cleanup(func() { _ = hs.Close() })
	return asked
}

func TestCommandsTalkOverTheSocketOfTheDataDirectory(t *testing.T) {
	t.Parallel()
	world, dir := newWorld(t), filepath.Join(t.TempDir(), strings.Repeat("long", 40), "data")
	s := serveIn(t, world, dir)
	if err := os.Remove(filepath.Join(dir, service.URLFile)); err != nil { // no command reads it
		t.Fatal(err)
	}
	want(t, exitOK, "no jobs", nil, "backfill", "list", "--data-dir", dir)
	want(t, exitOK, "no jobs", []string{"APPVIEW_DATA_DIR=" + dir}, "backfill", "list")
	want(t, exitError, "the key is not known here", nil, "backfill", "list", "--data-dir", dir, "--key", testKey, "--json") // a way, not a right
	if runtime.GOOS != "windows" {
		for path, mode := range map[string]fs.FileMode{filepath.Join(dir, service.SocketDir): fs.ModeDir | 0o700, service.SocketOf(dir): fs.ModeSocket | 0o600} {
			if info, err := os.Lstat(path); err != nil || info.Mode() != mode {
				t.Errorf("%s: %v, %v", path, info.Mode(), err)
			}
		}
	}
	s.end()
	if _, err := os.Lstat(service.SocketOf(dir)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is left behind: %v", err)
	}
}

func TestSocketThatAKilledServerHasLeftIsTakenOver(t *testing.T) {
	t.Parallel()
	world, dir := newWorld(t), t.TempDir()
	leaveSocket(t, dir)
	s := serveIn(t, world, dir)
	want(t, exitOK, "no jobs", nil, "backfill", "list", "--data-dir", dir)
	s.end()
}

// TestServerRunsWhereThereCanBeNoSocket: some file systems take none, and somebody may
// have put something else there.
func TestServerRunsWhereThereCanBeNoSocket(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(dir string) error{
		"a file in the place of its directory": func(dir string) error { return os.WriteFile(filepath.Join(dir, service.SocketDir), nil, 0o600) },
		"a link in the place of its directory": func(dir string) error { return os.Symlink(t.TempDir(), filepath.Join(dir, service.SocketDir)) },
		"a file in its place": func(dir string) error {
			return errors.Join(os.Mkdir(filepath.Join(dir, service.SocketDir), 0o700), os.WriteFile(service.SocketOf(dir), nil, 0o600))
		},
	} {
		world, dir := newWorld(t), t.TempDir()
		if err := prepare(dir); err != nil {
			t.Fatal(err)
		}
		s := serveIn(t, world, dir)
		if n := strings.Count(s.log.String(), "they need --url"); n != 1 {
			t.Errorf("%s: said %d times:\n%s", name, n, s.log)
		}
		want(t, exitOK, "no jobs", nil, "backfill", "list", "--data-dir", dir, "--url", s.url)
		if code := s.end(); code != exitOK {
			t.Errorf("%s: ended with %d:\n%s", name, code, s.log)
		}
	}
}

func TestSocketOfTheOperatorsChoiceServesEverything(t *testing.T) {
	t.Parallel()
	world, dir := newWorld(t), t.TempDir()
	path := filepath.Join(t.TempDir(), "http.sock")
	s := serveIn(t, world, dir, "--listen", "unix:"+path)
	if s.url != "unix:"+path {
		t.Errorf("it says that it is at %q", s.url)
	}
	want(t, exitOK, "no jobs", nil, "backfill", "list", "--url", "unix:"+path, "--data-dir", dir)
	c := startChild(t, nil, "serve", "--data-dir", t.TempDir(), "--listen", "unix:"+path)
	if code := c.wait(); code != exitError || !strings.Contains(c.log.String(), "a server listens there") {
		t.Errorf("a second server ended with %d: %s", code, c.log)
	}
	s.end()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is left behind: %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	write(t, file, "precious")
	for address, text := range map[string]string{"unix:": "must name the file of a socket", "unix:" + file: "no socket: name another", "unix:/nowhere/at.all": "listen on /nowhere/at.all (--listen)"} {
		c := startChild(t, nil, "serve", "--data-dir", t.TempDir(), "--listen", address)
		if code := c.wait(); code == exitOK || !strings.Contains(c.log.String(), text) || strings.Count(c.log.String(), "\n") != 1 {
			t.Errorf("%s ended with %d: %s", address, code, c.log)
		}
	}
	if read(t, file) != "precious" {
		t.Error("a file was replaced by a socket")
	}
}

// TestKeyGoesNowhereElse: the working directory may be somebody else's, and after a
// kill anybody may listen at the address where a server was.
func TestKeyGoesNowhereElse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	asked := hears(t, l)
	write(t, filepath.Join(dir, service.URLFile), "http://"+l.Addr().String()+"\n")
	write(t, filepath.Join(dir, service.KeyFile), testKey+"\n")
	environ := []string{"APPVIEW_KEY=" + testKey}
	for _, env := range [][]string{nil, environ, {"APPVIEW_ADMIN_KEY=" + testKey}} {
		want(t, exitError, "no server at "+service.SocketOf(dir), env, "stats", "--data-dir", dir)
	}
	select {
	case r := <-asked:
		t.Errorf("the planted address was asked for %s with %q", r.URL, r.Header["Authorization"])
	default:
	}
}

func TestKeyFileThatOthersMayWriteIsNotUsed(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("files have no such modes")
	}
	for mode, used := range map[fs.FileMode]bool{0o600: true, 0o400: true, 0o644: true, 0o660: false, 0o602: false} {
		dir := t.TempDir()
		path := filepath.Join(dir, service.KeyFile)
		write(t, path, testKey)
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := service.ReadKey(dirOf(t, dir)); (err == nil) != used || err != nil && !strings.Contains(err.Error(), "make it 0600") {
			t.Errorf("%v: %v", mode, err)
		}
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "elsewhere"), testKey)
	if err := os.Symlink("elsewhere", filepath.Join(dir, service.KeyFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := service.ReadKey(dirOf(t, dir)); !errors.Is(err, datadir.ErrLink) {
		t.Errorf("a link: %v", err)
	}
}

func TestStartSetsItsFilesBackToTheirOwner(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("files have no such modes")
	}
	world, dir := newWorld(t), t.TempDir()
	serveIn(t, world, dir).end()
	for _, name := range []string{service.DatabaseFile, service.KeyFile} {
		if err := os.Chmod(filepath.Join(dir, name), 0o664); err != nil {
			t.Fatal(err)
		}
	}
	s := serveIn(t, world, dir)
	for _, name := range []string{service.DatabaseFile, service.KeyFile} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	want(t, exitOK, "no jobs", nil, "backfill", "list", "--data-dir", dir)
	s.end()
}

func TestDatabaseOfNoBytesBesideAKeyIsDamage(t *testing.T) {
	t.Parallel()
	world, dir := newWorld(t), t.TempDir()
	serveIn(t, world, dir).end()
	path := filepath.Join(dir, service.DatabaseFile)
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	want(t, exitDamaged, "restore a backup, or remove both files to begin anew", nil, "serve", "--data-dir", dir, "--listen", "127.0.0.1:0")
	for _, args := range [][]string{{"check"}, {"compact"}, {"keys", "rescue"}} {
		want(t, exitDamaged, "restore a backup", nil, append(args, "--data-dir", dir)...)
	}
	if info, err := os.Stat(path); err != nil || info.Size() != 0 {
		t.Errorf("something was begun: %v, %v", info, err)
	}
	if err := errors.Join(os.Remove(path), os.Remove(filepath.Join(dir, service.KeyFile))); err != nil {
		t.Fatal(err)
	}
	serveIn(t, world, dir).end()
}
