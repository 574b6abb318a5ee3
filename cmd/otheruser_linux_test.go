package cmd

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"appview/cmd/service"
)

// becomeUser gives up everything that root may do.
func becomeUser(id string) error {
	if id == "" {
		return nil
	}
	uid, err := strconv.Atoi(id)
	if err != nil {
		return err
	}
	return errors.Join(syscall.Setgroups(nil), syscall.Setgid(uid), syscall.Setuid(uid))
}

// Users of these tests, beside root.
const (
	owner    = 12345
	attacker = 23456
)

// runsAs runs a command line as a user.
func runsAs(t *testing.T, user int, environ []string, args ...string) (code int, printed string) {
	t.Helper()
	c := startChild(t, append([]string{asUser + "=" + strconv.Itoa(user)}, environ...), args...)
	return c.wait(), c.log.String()
}

// dirOfUser makes a directory that belongs to a user.
func dirOfUser(t *testing.T, user int, mode os.FileMode) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can be several users")
	}
	top := t.TempDir()
	dir := filepath.Join(top, "data")
	if err := errors.Join(os.Chmod(filepath.Dir(top), 0o755), os.Mkdir(dir, 0o700), os.Chmod(dir, mode), os.Chown(dir, user, user)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// serveAs starts a server as a user.
func serveAs(t *testing.T, user int, dir string) *child {
	t.Helper()
	world := newWorld(t)
	args := []string{"serve", "--data-dir", dir, "--listen", "127.0.0.1:0", "--relay", world.RelayURL(), "--plc", world.PLCURL(), "--allow-private-hosts"}
	c := startChild(t, []string{asUser + "=" + strconv.Itoa(user)}, args...)
	c.log.wait(t, "msg=serving")
	return c
}

func (c *child) interrupt() int {
	c.t.Helper()
	if err := c.cmd.Process.Signal(os.Interrupt); err != nil {
		c.t.Fatal(err)
	}
	return c.wait()
}

func TestWhoMayUseTheSocketOfAServer(t *testing.T) {
	t.Parallel()
	dir := dirOfUser(t, owner, 0o755) // as fsGroup and bind mounts leave it
	c := serveAs(t, owner, dir)
	url := strings.TrimSpace(read(t, filepath.Join(dir, service.URLFile)))
	key := []string{"APPVIEW_KEY=" + strings.TrimSpace(read(t, filepath.Join(dir, service.KeyFile)))}
	for name, run := range map[string]struct {
		user    int
		environ []string
		args    []string
		code    int
		text    string
	}{
		"the owner":                       {owner, nil, nil, exitOK, "no jobs"},
		"root, for the owner":             {0, nil, nil, exitOK, "no jobs"},
		"another without a key":           {attacker, nil, nil, exitError, "be that user, or name the server with --url and give a key with --key"},
		"another with a key":              {attacker, key, nil, exitError, "open to the user that runs the server alone: be that user, or name the server with --url"},
		"another with a key and a URL":    {attacker, key, []string{"--url", url}, exitOK, "no jobs"},
		"another with a URL, without key": {attacker, nil, []string{"--url", url}, exitError, "be that user"},
	} {
		code, printed := runsAs(t, run.user, run.environ, append([]string{"backfill", "list", "--data-dir", dir}, run.args...)...)
		if code != run.code || !strings.Contains(printed, run.text) || strings.Count(printed, "\n") != 1 {
			t.Errorf("%s: %d, %s", name, code, printed)
		}
	}
	if code := c.interrupt(); code != exitOK {
		t.Errorf("ended with %d: %s", code, c.log)
	}
}

// TestKeyDoesNotGoToTheSocketOfAStranger: the directory may be one that anybody could
// have made, such as the default one in a working directory under /tmp.
func TestKeyDoesNotGoToTheSocketOfAStranger(t *testing.T) {
	t.Parallel()
	dir := dirOfUser(t, attacker, 0o777)
	if err := os.Mkdir(filepath.Join(dir, service.SocketDir), 0o777); err != nil {
		t.Fatal(err)
	}
	asked := hears(t, listenAt(t, dir))
	if err := errors.Join(
		os.Chmod(filepath.Join(dir, service.SocketDir), 0o777), os.Chmod(service.SocketOf(dir), 0o777), os.Chown(service.SocketOf(dir), attacker, attacker), //nolint:gosec // so that nothing else keeps the others out
	); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, service.KeyFile), testKey)
	write(t, filepath.Join(dir, service.DatabaseFile), "")
	for _, user := range []int{owner, 0} {
		code, printed := runsAs(t, user, []string{"APPVIEW_KEY=" + testKey}, "stats", "--data-dir", dir)
		if code != exitError || !strings.Contains(printed, "user 23456 listens there") || !strings.Contains(printed, "no key is sent to it") {
			t.Errorf("user %d: %d, %s", user, code, printed)
		}
	}
	select {
	case r := <-asked:
		t.Errorf("it was asked with %q", r.Header["Authorization"])
	default:
	}
}

func TestKeyFileOfAStrangerIsNotUsed(t *testing.T) {
	t.Parallel()
	dir := dirOfUser(t, attacker, 0o755)
	write(t, filepath.Join(dir, service.KeyFile), testKey)
	if err := errors.Join(os.Chown(filepath.Join(dir, service.KeyFile), attacker, attacker), os.Chmod(filepath.Join(dir, service.KeyFile), 0o644)); err != nil {
		t.Fatal(err)
	}
	for _, user := range []int{owner, 0} { // without a database, root acts for nobody
		if code, printed := runsAs(t, user, nil, "stats", "--data-dir", dir); code != exitError || !strings.Contains(printed, "belongs to user 23456") {
			t.Errorf("user %d: %d, %s", user, code, printed)
		}
	}
}

// TestServerTakesOverADirectoryThatBelongsToOthers has a directory as Kubernetes makes it
// for a group: of root, and all that is in it open to the group.
func TestServerTakesOverADirectoryThatBelongsToOthers(t *testing.T) {
	t.Parallel()
	dir := dirOfUser(t, 0, 0o770)
	if err := os.Chown(dir, 0, owner); err != nil {
		t.Fatal(err)
	}
	if code := serveAs(t, owner, dir).interrupt(); code != exitOK {
		t.Errorf("ended with %d", code)
	}
	for _, name := range []string{service.DatabaseFile, service.KeyFile, service.SocketDir} {
		if err := os.Chmod(filepath.Join(dir, name), 0o770); err != nil {
			t.Fatal(err)
		}
	}
	c := serveAs(t, owner, dir)
	for name, mode := range map[string]os.FileMode{service.DatabaseFile: 0o600, service.KeyFile: 0o600, service.SocketDir: 0o700} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	for _, user := range []int{owner, 0} {
		if code, printed := runsAs(t, user, nil, "backfill", "list", "--data-dir", dir); code != exitOK {
			t.Errorf("user %d: %s", user, printed)
		}
	}
	c.interrupt()

	// Files that cannot be set back do not keep it from running.
	if err := errors.Join(os.Chown(filepath.Join(dir, service.DatabaseFile), 0, owner), os.Chmod(filepath.Join(dir, service.DatabaseFile), 0o660)); err != nil {
		t.Fatal(err)
	}
	c = serveAs(t, owner, dir)
	if !strings.Contains(c.log.String(), "may be open to others") {
		t.Errorf("not said:\n%s", c.log)
	}
	if code := c.interrupt(); code != exitOK {
		t.Errorf("ended with %d: %s", code, c.log)
	}
}

// TestRootIsNotLedAstrayInAnothersDirectory plants links where root writes.
func TestRootIsNotLedAstrayInAnothersDirectory(t *testing.T) {
	t.Parallel()
	dir := dirOfUser(t, attacker, 0o755)
	serveAs(t, attacker, dir).interrupt()
	victim := filepath.Join(t.TempDir(), "victim")
	write(t, victim, "of root's")
	if err := os.Remove(filepath.Join(dir, service.KeyFile)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{service.DatabaseFile + ".compact", service.KeyFile} {
		if err := os.Symlink(victim, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, service.DatabaseFile), 0o666); err != nil { //nolint:gosec // the mode that the victim would get
		t.Fatal(err)
	}
	want(t, exitOK, "given back", nil, "compact", "--data-dir", dir)
	want(t, exitOK, "new admin key in", nil, "keys", "rescue", "--data-dir", dir)
	info, err := os.Lstat(victim)
	if err != nil {
		t.Fatal(err)
	}
	if st, is := info.Sys().(*syscall.Stat_t); !is || st.Uid != 0 || info.Mode() != 0o600 || read(t, victim) != "of root's" {
		t.Errorf("a file of root's: %+v, %v, %q", st, info.Mode(), read(t, victim))
	}
	for _, name := range []string{service.DatabaseFile, service.KeyFile} {
		info, err := os.Lstat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if st, is := info.Sys().(*syscall.Stat_t); !is || st.Uid != attacker || !info.Mode().IsRegular() {
			t.Errorf("%s: %+v, %v", name, st, info.Mode())
		}
	}
}
