package cmd

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// serveCommand is the command as it would be run.
func serveCommand(t *testing.T) *cobra.Command {
	t.Helper()
	cmd, _, err := (&program{}).newRoot().Find([]string{"serve"})
	if err != nil {
		t.Fatal(err)
	}
	return cmd
}

func TestServiceUnitFitsTheProgram(t *testing.T) {
	t.Parallel()
	unit := read(t, filepath.Join("..", "contrib", "systemd", "appview.service"))
	settings := map[string][]string{}
	for line := range strings.Lines(unit) {
		if name, value, is := strings.Cut(strings.TrimSpace(line), "="); is && !strings.HasPrefix(line, "#") {
			settings[name] = append(settings[name], value)
		}
	}
	words := strings.Fields(strings.Join(settings["ExecStart"], " "))
	if len(words) < 2 || filepath.Base(words[0]) != "appview" || words[1] != "serve" {
		t.Fatalf("ExecStart is %q", words)
	}
	serve := serveCommand(t)
	if err := serve.ParseFlags(words[2:]); err != nil {
		t.Errorf("ExecStart: %v", err)
	}
	if !slices.Equal(settings["Type"], []string{"notify"}) || !slices.Equal(settings["TimeoutStartSec"], []string{"infinity"}) {
		t.Errorf("Type is %q, TimeoutStartSec is %q", settings["Type"], settings["TimeoutStartSec"])
	}
	if codes := settings["RestartPreventExitStatus"]; !slices.Equal(codes, []string{"2 4"}) || exitUsage != 2 || exitDamaged != 4 {
		t.Errorf("RestartPreventExitStatus is %q", codes)
	}
	for _, name := range []string{"DynamicUser", "NoNewPrivileges", "PrivateTmp", "ProtectHome", "MemoryDenyWriteExecute"} {
		if !slices.Equal(settings[name], []string{"yes"}) {
			t.Errorf("%s is %q", name, settings[name])
		}
	}
	if subset := settings["ProcSubset"]; subset != nil {
		t.Errorf("ProcSubset is %q: process_start_time_seconds, which an alert looks at, needs /proc/stat", subset)
	}
	knowsVariables(t, unit)
}

func TestImageFitsTheProgram(t *testing.T) {
	t.Parallel()
	file := read(t, filepath.Join("..", "contrib", "container", "Containerfile"))
	knowsVariables(t, file)
	for _, line := range []string{"FROM scratch\n", "\nUSER 65532:65532\n", "\nENTRYPOINT [\"/appview\"]\n", "\nCMD [\"serve\"]\n", "\nVOLUME /data\n"} {
		if !strings.Contains(file, line) {
			t.Errorf("%q is missing", line)
		}
	}
	mod := read(t, filepath.Join("..", "go.mod"))
	version := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(mod)
	if len(version) != 2 || !strings.Contains(file, "\nARG GO="+version[1]+"\n") {
		t.Errorf("the image is not built with the Go of go.mod: %v", version)
	}
}

// knowsVariables fails if a text names a variable that the program would refuse.
func knowsVariables(t *testing.T, text string) {
	t.Helper()
	names := regexp.MustCompile(`APPVIEW_[A-Z_]+[A-Z]`).FindAllString(text, -1)
	if len(names) == 0 {
		t.Error("no variable is named")
	}
	root := serveCommand(t).Root()
	for _, name := range names {
		if !knownEnv(root, name) {
			t.Errorf("no flag knows %s", name)
		}
	}
}
