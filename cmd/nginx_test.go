//go:build browser || nginx

package cmd

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"appview/cmd/service"
)

// These tests run a real nginx, with Debian's configuration and the blocks that
// docs/operating.md has for users.

const (
	nginxDefaults = "/etc/nginx/nginx.conf"
	shownAt       = "/appview" // by the blocks of the documentation
)

// documented is a block of the documentation for nginx, by what it does with the path.
func documented(t *testing.T, isStripped bool) string {
	t.Helper()
	blocks := fenced(read(t, "../docs/operating.md"), "nginx")
	if len(blocks) != 2 {
		t.Fatalf("%d blocks of nginx are documented", len(blocks))
	}
	if isStripped {
		return blocks[0]
	}
	return blocks[1]
}

// upstream puts where the server is into a block of the documentation, also that of a
// socket, as the block itself says.
func upstream(t *testing.T, block, at string) string {
	t.Helper()
	const documentedAddress, documentedSocket = "http://127.0.0.1:3000", "unix:/run/appview/http.sock"
	if path, isSocket := strings.CutPrefix(at, service.UnixScheme); isSocket {
		found := regexp.MustCompile(`[Oo]ver a socket: (\S+)`).FindStringSubmatch(block)
		if found == nil || !strings.Contains(found[1], documentedSocket) {
			t.Fatalf("no socket is documented:\n%s", block)
		}
		to := strings.Replace(found[1], documentedSocket, service.UnixScheme+path, 1)
		return regexp.MustCompile(`proxy_pass [^;]+;`).ReplaceAllLiteralString(block, "proxy_pass "+to+";")
	}
	if !strings.Contains(block, documentedAddress) {
		t.Fatalf("no %s is documented:\n%s", documentedAddress, block)
	}
	return strings.ReplaceAll(block, documentedAddress, at)
}

// nginx is a running nginx.
type nginx struct {
	t   *testing.T
	url string // of its root
	dir string
	cmd *exec.Cmd
	log *output
}

// openToAll is a directory that any user may enter, as nginx's workers are another one.
func openToAll(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{filepath.Dir(dir), dir} {
		if err := os.Chmod(d, 0o755); err != nil { //nolint:gosec // that is its purpose
			t.Fatal(err)
		}
	}
	return dir
}

// newNginx makes an address for an nginx, which answers when start has started it.
func newNginx(t *testing.T) (*nginx, *net.TCPListener) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tcp, _ := l.(*net.TCPListener)
	return &nginx{t: t, url: "http://" + l.Addr().String(), dir: openToAll(t), log: newOutput()}, tcp
}

// start starts nginx as Debian has configured it, with one server that holds the blocks.
// It takes over the open port: nobody can take that in between.
func (n *nginx) start(l *net.TCPListener, blocks string) {
	n.t.Helper()
	conf := read(n.t, nginxDefaults)
	for _, change := range [][2]string{
		{`(?m)^pid .*$`, "pid " + n.dir + "/pid;"},
		{`(?m)^error_log .*$`, "error_log " + n.dir + "/error.log warn;"},
		{`(?m)^\s*access_log .*$`, "access_log " + n.dir + "/access.log;\nclient_body_temp_path " + n.dir + "/body;\nproxy_temp_path " + n.dir + "/proxy;"},
		{`(?m)^\s*include /etc/nginx/modules-enabled.*$`, ""}, // their paths are relative to another prefix
		{`(?m)^\s*include /etc/nginx/conf\.d.*$`, ""},
		{`(?m)^\s*include /etc/nginx/sites-enabled.*$`, "server {\nlisten " + l.Addr().String() + ";\nserver_name localhost;\n" + blocks + "}"},
	} {
		made := regexp.MustCompile(change[0]).ReplaceAllLiteralString(conf, change[1])
		if made == conf {
			n.t.Fatalf("%s has no %s", nginxDefaults, change[0])
		}
		conf = made
	}
	write(n.t, filepath.Join(n.dir, "nginx.conf"), conf)
	port, err := l.File()
	if err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(n.t.Context()), 5*time.Minute)
	n.cmd = exec.CommandContext(ctx, "nginx", "-p", n.dir, "-e", n.dir+"/error.log", "-c", n.dir+"/nginx.conf", "-g", "daemon off;")
	n.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "NGINX=3;"}
	n.cmd.ExtraFiles = []*os.File{port}
	n.cmd.Stdout, n.cmd.Stderr = n.log, n.log
	n.cmd.Cancel = func() error { return n.cmd.Process.Signal(syscall.SIGTERM) } // which it passes on to its workers
	n.cmd.WaitDelay = patience
	fd := port.Fd()
	err = n.cmd.Start()
	// To be handed over it was made one that blocks, and a worker would wait for ever for a
	// connection that another has taken.
	err = errors.Join(err, syscall.SetNonblock(int(fd), true))
	if err = errors.Join(err, port.Close(), l.Close()); err != nil {
		n.t.Fatalf("no nginx: make nginx installs it: %v", err)
	}
	n.t.Cleanup(func() {
		cancel()
		_ = n.cmd.Wait() // it was told to end
		if n.t.Failed() {
			n.t.Logf("nginx:\n%s%s", n.log, read(n.t, n.dir+"/error.log"))
		}
	})
}
