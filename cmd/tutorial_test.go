package cmd

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"appview/cmd/service"
)

// fenced are the blocks of a language in a page, in order.
func fenced(page, language string) (blocks []string) {
	for i, part := range strings.Split(page, "\n```") {
		if text, is := strings.CutPrefix(part, language+"\n"); is && i%2 == 1 {
			blocks = append(blocks, text)
		}
	}
	return blocks
}

// tutorialEnds are the commands of the tutorial that are not run here: to build the
// program, and what needs packages from a registry, which the tests against real
// parts run.
var tutorialEnds = []string{"go build", "mkdir app", "npm ", "node "} //nolint:gochecknoglobals // a table that is never changed

func TestTutorial(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{"bash", "curl"} {
		if _, err := exec.LookPath(tool); err != nil || runtime.GOOS == "windows" {
			t.Skipf("the tutorial is for systems with %s", tool)
		}
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	world, dir := newWorld(t), t.TempDir()
	bin := filepath.Join(dir, "appview")
	if err := os.WriteFile(bin, []byte("#!/bin/sh\nexport "+reexec+"=1\nexec "+shellWord(exe)+" \"$@\"\n"), 0o700); err != nil { //nolint:gosec // it is to be run
		t.Fatal(err)
	}
	environ := []string{
		"PATH=" + dir + ":" + os.Getenv("PATH"), "TERM=dumb", "APPVIEW_LISTEN=127.0.0.1:0",
		"APPVIEW_RELAY=" + world.RelayURL(), "APPVIEW_PLC=" + world.PLCURL(), "APPVIEW_ALLOW_PRIVATE_HOSTS=true", "APPVIEW_HOST_RPS=10000",
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	shell := func(line string) *exec.Cmd {
		c := exec.CommandContext(ctx, "bash", "-ec", line)
		c.Dir, c.Env, c.WaitDelay = dir, environ, patience
		return c
	}
	url, ran := "", map[string]string{}
	for _, block := range fenced(read(t, "../docs/tutorial.md"), "sh") {
		for line := range strings.Lines(block) {
			line = strings.TrimSpace(line)
			switch {
			case startsWithOneOf(line, tutorialEnds):
			case strings.HasPrefix(line, "appview serve"):
				log := newOutput()
				server := shell("exec " + line)
				server.Stderr = log
				server.Cancel = func() error { return server.Process.Signal(os.Interrupt) }
				if err := server.Start(); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() {
					cancel()
					if err := server.Wait(); server.ProcessState.ExitCode() != exitOK {
						t.Errorf("%s: %v\n%s", line, err, log)
					}
				})
				log.wait(t, "msg=serving")
				url = strings.TrimSpace(read(t, filepath.Join(dir, defaultDataDir, service.URLFile)))
			default:
				out, err := shell(strings.ReplaceAll(line, exampleURL, url)).CombinedOutput()
				if err != nil {
					t.Fatalf("%s: %v\n%s", line, err, out)
				}
				ran[line] = string(out)
			}
		}
	}
	for line, text := range map[string]string{
		"appview demo --exit": "\ndone in ",
		"appview backfill plan --collection xyz.statusphere.status":                          "\nbottleneck  http",
		"appview backfill watch":                                                             "status     completed",
		"appview backfill report":                                                            "CLASS ",
		"appview records list --collection xyz.statusphere.status --limit 3":                 "at://did:plc:",
		"appview collections list":                                                           "under a minute",
		`curl -s '` + exampleURL + `/api/records?collection=xyz.statusphere.status&limit=2'`: `"value":{"$type":"xyz.statusphere.status"`,
	} {
		if !strings.Contains(ran[line], text) {
			t.Errorf("%s printed no %q:\n%s", line, text, ran[line])
		}
	}
	if len(ran) < 11 {
		t.Errorf("only %d commands were run: %v", len(ran), ran)
	}
}

func startsWithOneOf(line string, beginnings []string) bool {
	for _, b := range beginnings {
		if strings.HasPrefix(line, b) {
			return true
		}
	}
	return false
}
