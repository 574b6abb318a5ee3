package datadir_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"appview/internal/datadir"
)

func open(t *testing.T, path string) *datadir.Dir {
	t.Helper()
	d, err := datadir.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func link(t *testing.T, to, from string) {
	t.Helper()
	if err := os.Symlink(to, from); err != nil {
		t.Skipf("no symbolic links here: %v", err)
	}
}

func TestLinkIsNeverOpened(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	outside := filepath.Join(t.TempDir(), "outside")
	write(t, outside, "outside")
	write(t, filepath.Join(path, "inside"), "inside")
	link(t, outside, filepath.Join(path, "out"))
	link(t, "inside", filepath.Join(path, "in"))
	link(t, "missing", filepath.Join(path, "dangling"))
	link(t, "in", filepath.Join(path, "chain"))
	d := open(t, path)
	for _, name := range []string{"out", "in", "dangling", "chain"} {
		for _, flag := range []int{os.O_RDONLY, os.O_RDWR, os.O_RDWR | os.O_CREATE, os.O_WRONLY | os.O_CREATE | os.O_TRUNC} {
			if f, err := d.OpenFile(name, flag, 0o600); !errors.Is(err, datadir.ErrLink) {
				t.Errorf("open %s with %x: %v, %v", name, flag, f, err)
			}
		}
		if f, err := d.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); !errors.Is(err, fs.ErrExist) {
			t.Errorf("create %s: %v, %v", name, f, err)
		}
		if _, _, err := d.ReadFile(name, 100); !errors.Is(err, datadir.ErrLink) {
			t.Errorf("read %s: %v", name, err)
		}
	}
	if _, err := os.Lstat(filepath.Join(path, "missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file was made at the end of a link: %v", err)
	}
	if got := read(t, outside) + read(t, filepath.Join(path, "inside")); got != "outsideinside" {
		t.Errorf("a file was written through a link: %q", got)
	}
}

func TestReplaceReplacesALinkAndNotWhatItLeadsTo(t *testing.T) {
	t.Parallel()
	path, outside := t.TempDir(), filepath.Join(t.TempDir(), "outside")
	write(t, outside, "outside")
	link(t, outside, filepath.Join(path, "key"))
	d := open(t, path)
	err := d.Replace("key", func(f *os.File) error {
		_, err := f.WriteString("new")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := read(t, outside); got != "outside" {
		t.Errorf("the link was followed: %q", got)
	}
	info, err := os.Lstat(filepath.Join(path, "key"))
	if err != nil || info.Mode() != 0o600 || read(t, filepath.Join(path, "key")) != "new" {
		t.Errorf("the new file: %v, %v", info, err)
	}
}

func TestReplaceThatFailsLeavesNothing(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	write(t, filepath.Join(path, "key"), "old")
	d := open(t, path)
	full := errors.New("no room")
	if err := d.Replace("key", func(*os.File) error { return full }); !errors.Is(err, full) {
		t.Errorf("error %v", err)
	}
	if entries, err := os.ReadDir(path); err != nil || len(entries) != 1 || read(t, filepath.Join(path, "key")) != "old" {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	write(t, filepath.Join(path, "key.part-CRASHED"), "half")
	write(t, filepath.Join(path, "other.part-CRASHED"), "half")
	if err := d.RemoveParts("key"); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(path); err != nil || len(entries) != 2 {
		t.Errorf("after the parts were removed: %v, %v", entries, err)
	}
}

func TestOnlyRegularFilesAreOpened(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	if err := os.Mkdir(filepath.Join(path, "directory"), 0o700); err != nil {
		t.Fatal(err)
	}
	d := open(t, path)
	if _, err := d.OpenFile("directory", os.O_RDONLY, 0); !errors.Is(err, datadir.ErrNotRegular) {
		t.Errorf("directory: %v", err)
	}
	if err := d.Replace("directory", func(*os.File) error { return nil }); !errors.Is(err, datadir.ErrNotRegular) {
		t.Errorf("replace a directory: %v", err)
	}
	for _, name := range []string{"../escape", "/etc/passwd", ".."} {
		if f, err := d.OpenFile(name, os.O_RDONLY, 0); err == nil {
			t.Errorf("%s was opened: %v", name, f.Name())
		}
	}
}

func TestReadFileIsBounded(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	write(t, filepath.Join(path, "key"), strings.Repeat("x", 101))
	d := open(t, path)
	if _, _, err := d.ReadFile("key", 100); err == nil || !strings.Contains(err.Error(), "longer than 100 bytes") {
		t.Errorf("error %v", err)
	}
	if data, info, err := d.ReadFile("key", 101); err != nil || len(data) != 101 || info.Size() != 101 {
		t.Errorf("%d bytes, %v, %v", len(data), info, err)
	}
}

func TestSubdirThatIsALinkIsRefused(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	if err := os.Mkdir(filepath.Join(path, "real"), 0o700); err != nil {
		t.Fatal(err)
	}
	link(t, "real", filepath.Join(path, "run"))
	d := open(t, path)
	if _, err := d.Subdir("run", 0o700); !errors.Is(err, datadir.ErrLink) {
		t.Errorf("error %v", err)
	}
	write(t, filepath.Join(path, "file"), "")
	if _, err := d.Subdir("file", 0o700); err == nil {
		t.Error("a file was opened as a directory")
	}
	sub, err := d.Subdir("real", 0o700)
	if err != nil {
		t.Fatal(err)
	}
	if err := sub.Close(); err != nil {
		t.Error(err)
	}
}

func TestSetMode(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "key")
	write(t, path, "")
	if err := os.Chmod(path, 0o664); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := datadir.SetMode(f, 0o600)
	if err != nil || !kept {
		t.Errorf("kept %t, %v", kept, err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}
