package cmd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"appview/cmd/service"
)

func TestVariablesOfContainerPlatformsAreNoMistakes(t *testing.T) {
	t.Parallel()
	root := (&program{}).newRoot()
	for name, known := range map[string]bool{
		"APPVIEW_PORT": true, "APPVIEW_SERVICE_HOST": true, "APPVIEW_SERVICE_PORT": true, "APPVIEW_SERVICE_PORT_HTTP": true,
		"APPVIEW_PORT_3000_TCP": true, "APPVIEW_PORT_3000_TCP_ADDR": true, "APPVIEW_PORT_53_UDP_PROTO": true, "APPVIEW_PORT_9_SCTP": true,
		"APPVIEW_METRICS_PORT": true, "APPVIEW_METRICS_SERVICE_HOST": true, "APPVIEW_METRICS_SERVICE_PORT_METRICS_TLS": true,
		"APPVIEW_METRICS_PORT_9090_TCP_PORT": true, "APPVIEW_A_B_C_SERVICE_PORT": true,
		"APPVIEW_ADMIN_KEY": true, "APPVIEW_ADMIN_KEY_FILE": true, "APPVIEW_KEY_FILE": true, "APPVIEW_LISTEN": true,
		"APPVIEW_LISTEN_FILE": false, "APPVIEW_PORTS": false, "APPVIEW_COLECTION": false, "APPVIEW_METRICS_PORT_TCP": false,
		"APPVIEW_SERVICE": false, "APPVIEW_SERVICE_HOSTS": false, "APPVIEW_SUPPORT": false,
	} {
		if got := knownEnv(root, name); got != known {
			t.Errorf("%s: known %t, want %t", name, got, known)
		}
	}
}

// TestNoSettingHasTheNameOfAnInjectedVariable: a Service of an unlucky name would set it.
func TestNoSettingHasTheNameOfAnInjectedVariable(t *testing.T) {
	t.Parallel()
	n := 0
	walkCommands((&program{}).newRoot(), func(cmd *cobra.Command) {
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			for _, name := range f.Annotations[envAnnotation] {
				if n++; envInjected.MatchString(name) {
					t.Errorf("--%s has the variable %s", f.Name, name)
				}
			}
		})
	})
	if n < 20 {
		t.Errorf("only %d variables were looked at", n)
	}
}

func TestSecretsFromFiles(t *testing.T) {
	t.Parallel()
	world, dir, keys := newWorld(t), t.TempDir(), t.TempDir()
	// As Kubernetes has them: links, readable by others.
	file := filepath.Join(keys, "key")
	write(t, filepath.Join(keys, "..data"), testKey+"\n")
	if err := os.Chmod(filepath.Join(keys, "..data"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("..data", file); err != nil {
		t.Skipf("no symbolic links here: %v", err)
	}
	c := startChild(t, []string{"APPVIEW_ADMIN_KEY_FILE=" + file}, "serve", "--data-dir", dir, "--listen", "127.0.0.1:0", "--relay", world.RelayURL(), "--plc", world.PLCURL(), "--allow-private-hosts")
	c.log.wait(t, "msg=serving")
	if _, err := os.Stat(filepath.Join(dir, service.KeyFile)); !os.IsNotExist(err) {
		t.Errorf("a key was made: %v", err)
	}
	want(t, exitOK, "no jobs", []string{"APPVIEW_ADMIN_KEY_FILE=" + file}, "backfill", "list", "--data-dir", dir) // as docker exec does
	want(t, exitOK, "no jobs", []string{"APPVIEW_KEY_FILE=" + file}, "backfill", "list", "--data-dir", dir)
	if err := c.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if code := c.wait(); code != exitOK {
		t.Errorf("ended with %d: %s", code, c.log)
	}

	empty := filepath.Join(keys, "empty")
	write(t, empty, " \n")
	write(t, filepath.Join(keys, "long"), strings.Repeat("x", maxSecretFile+1))
	for value, text := range map[string]string{
		filepath.Join(keys, "missing"): "no such file", empty: "is empty", keys: "is a directory", filepath.Join(keys, "long"): "longer than 64 KiB",
	} {
		want(t, exitUsage, "APPVIEW_ADMIN_KEY_FILE: ", []string{"APPVIEW_ADMIN_KEY_FILE=" + value}, "serve", "--data-dir", dir)
		want(t, exitUsage, text, []string{"APPVIEW_KEY_FILE=" + value}, "stats", "--data-dir", dir)
	}
	want(t, exitUsage, "are both set", []string{"APPVIEW_ADMIN_KEY_FILE=" + file, "APPVIEW_ADMIN_KEY=" + testKey}, "serve", "--data-dir", dir)
	want(t, exitUsage, "are both set", []string{"APPVIEW_KEY_FILE=" + file, "APPVIEW_KEY=" + testKey}, "stats", "--data-dir", dir)
}
