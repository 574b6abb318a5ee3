package cmd

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"appview/cmd/service"
)

// TestRescueByRootLeavesTheKeyToTheUserOfTheServer: a service has a user of its own,
// and whoever rescues its key is often root.
func TestRescueByRootLeavesTheKeyToTheUserOfTheServer(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	world, dir := newWorld(t), t.TempDir()
	serveIn(t, world, dir).end()
	const user, group = 12345, 23456
	if err := os.Chown(filepath.Join(dir, service.DatabaseFile), user, group); err != nil {
		t.Fatal(err)
	}
	want(t, exitOK, "new admin key in", nil, "keys", "rescue", "--data-dir", dir)
	info, err := os.Stat(filepath.Join(dir, service.KeyFile))
	if err != nil {
		t.Fatal(err)
	}
	if st, is := info.Sys().(*syscall.Stat_t); !is || st.Uid != user || st.Gid != group || info.Mode().Perm() != 0o600 {
		t.Errorf("the key is of %+v, mode %v", st, info.Mode())
	}
}
