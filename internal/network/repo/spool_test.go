package repo

import (
	"os"
	"path/filepath"
	"testing"
)

func TestFilesOfLargeReposLeaveNothing(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	dir, err := os.OpenRoot(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()                                        //nolint:errcheck // nothing is written by it
	left := filepath.Join(path, spoolPrefix+"x"+spoolSuffix) // as if killed in between
	for _, name := range []string{left, filepath.Join(path, "appview.db")} {
		if err := os.WriteFile(name, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := RemoveSpooled(dir); err != nil {
		t.Fatal(err)
	}
	f, err := SpoolFile(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("blocks"), 1<<20); err != nil {
		t.Error(err)
	}
	closeSpool(f)
	if list, err := os.ReadDir(path); err != nil || len(list) != 1 || list[0].Name() != "appview.db" {
		t.Errorf("%v %v", list, err)
	}
}
