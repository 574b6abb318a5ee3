package cmd

import (
	"context"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"appview/internal/sandbox"
)

func TestDemoProvesItself(t *testing.T) {
	t.Parallel()
	out := want(t, exitOK, "none is missing, extra or different", nil, "demo", "--exit", "--repos", "40", "--hosts", "3", "--listen", "127.0.0.1:0")
	if !strings.Contains(out, "inventing 40 repos on 3 hosts") || strings.Contains(out, "Ctrl-C") {
		t.Errorf("printed:\n%s", out)
	}
}

func TestDemoTakesAnotherPortAndWhatItPrintsWorks(t *testing.T) {
	t.Parallel()
	busy, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = busy.Close() }()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	out, code := newOutput(), make(chan int, 1)
	go func() {
		code <- run(ctx, []string{"demo", "--repos", "40", "--hosts", "3", "--listen", busy.Addr().String()}, nil, out, out)
	}()
	out.wait(t, "Ctrl-C ends it.")
	if text := busy.Addr().String() + " is in use: taking another port"; !strings.Contains(out.String(), text) {
		t.Errorf("%q is not in:\n%s", text, out)
	}
	curl, err := exec.LookPath("curl")
	_, try, _ := strings.Cut(out.String(), "in another terminal:\n")
	lines, key := 0, ""
	var environ []string
	for line := range strings.Lines(try) {
		words := strings.Fields(line)
		switch {
		case !strings.HasPrefix(line, "  "):
		case strings.HasPrefix(words[0], "KEY="):
			key = words[0]
		case words[0] == "export":
			environ = append(environ, words[1])
		case words[0] == "curl":
			lines++
			if err != nil {
				t.Log("no curl here: the line is not tried")
				continue
			}
			cmd := exec.CommandContext(t.Context(), "sh", "-c", key+"\n"+curl+" --fail"+strings.TrimPrefix(strings.TrimSpace(line), "curl"))
			if answer, err := cmd.Output(); err != nil || len(answer) < 50 {
				t.Errorf("%s\n%v %s", line, err, answer)
			}
		default:
			lines++
			want(t, exitOK, "", environ, words[1:]...)
		}
	}
	if lines != 8 || key == "" || len(environ) != 1 {
		t.Errorf("%d lines to try in:\n%s", lines, out)
	}
	stop()
	select {
	case got := <-code:
		if got != exitOK || !strings.HasSuffix(out.String(), "\nThe demo has ended; its data is removed.\n") {
			t.Errorf("ended with %d:\n%s", got, out)
		}
	case <-time.After(patience):
		t.Fatal("the demo does not end")
	}
}

func TestCompareFindsEveryDifference(t *testing.T) {
	t.Parallel()
	truth := map[string]sandbox.Record{"a": {CID: "1"}, "b": {CID: "2"}, "c": {CID: "3"}}
	if err := compare(map[string]string{"a": "1", "b": "2", "c": "3"}, truth); err != nil {
		t.Error(err)
	}
	err := compare(map[string]string{"a": "1", "b": "x", "d": "4", "e": "5"}, truth)
	if err == nil || !strings.Contains(err.Error(), "1 records are missing, 2 extra, 1 different") {
		t.Errorf("got %v", err)
	}
}

func TestShellWordsComeBackWhole(t *testing.T) {
	t.Parallel()
	for word, quoted := range map[string]string{"/tmp/a-b_c": "/tmp/a-b_c", "a b": "'a b'", "it's": `'it'\''s'`, "": "''", "$x": "'$x'"} {
		if got := shellWord(word); got != quoted {
			t.Errorf("%q: %s, want %s", word, got, quoted)
		}
	}
}
