package datadir_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"appview/internal/datadir"
)

// TestPipeHoldsNobodyUp would wait for a writer for ever.
func TestPipeHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	if err := unix.Mkfifo(filepath.Join(path, "appview.db"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := open(t, path)
	for _, flag := range []int{os.O_RDONLY, os.O_RDWR, os.O_WRONLY | os.O_CREATE} {
		if _, err := d.OpenFile("appview.db", flag, 0o600); !errors.Is(err, datadir.ErrNotRegular) {
			t.Errorf("open with %x: %v", flag, err)
		}
	}
}
