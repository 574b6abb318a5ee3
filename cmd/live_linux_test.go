package cmd

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"appview/cmd/term"
	"appview/internal/sandbox"
)

// tty is a terminal with nobody before it: what is drawn on it is kept.
type tty struct {
	t    *testing.T
	side *os.File // where the program draws
	seen *output
	done chan struct{}
}

func newTTY(t *testing.T, columns uint16) *tty {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("there are no pseudo terminals here: %v", err)
	}
	fd := int(master.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	side, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	s := &tty{t: t, side: side, seen: newOutput(), done: make(chan struct{})}
	s.resize(columns)
	go func() {
		defer close(s.done)
		_, _ = io.Copy(s.seen, master) // ends when the other side is closed
		_ = master.Close()
	}()
	return s
}

func (s *tty) resize(columns uint16) {
	s.t.Helper()
	if err := unix.IoctlSetWinsize(int(s.side.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: columns}); err != nil {
		s.t.Fatal(err)
	}
}

// text is all that was drawn, when nothing more is.
func (s *tty) text() string {
	s.t.Helper()
	if err := s.side.Close(); err != nil {
		s.t.Fatal(err)
	}
	<-s.done
	return s.seen.String()
}

// frames are the lines of each time that something was drawn.
func frames(text string) (all [][]string) {
	for part := range strings.SplitSeq(text, "\x1b[J") {
		part, _, _ = strings.Cut(part, "\x1b[")
		all = append(all, strings.Split(strings.TrimRight(strings.ReplaceAll(part, "\r", ""), "\n"), "\n"))
	}
	return all
}

func TestTheTerminalIsDrawnOnInPlaceAndLeftSane(t *testing.T) {
	t.Parallel()
	world, dir := newWorld(t), t.TempDir()
	hang(world)
	s := serveIn(t, world, dir)
	wide := newTTY(t, 100)
	ctx, cancel := context.WithCancel(t.Context())
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, []string{"backfill", "create", "--watch", "--data-dir", dir, "--collection", sandbox.StatusCollection.String()},
			[]string{"TERM=xterm"}, wide.side, wide.seen)
	}()
	wide.seen.wait(t, "fetching_records")
	wide.resize(24)
	wide.seen.wait(t, "…") // narrower than what there is to say
	wide.resize(100)
	cancel()
	if got := <-code; got != exitError {
		t.Errorf("ended with %d", got)
	}
	text := wide.text()
	if !strings.Contains(text, "\x1b[J") || !strings.Contains(text, "no longer watched: the job goes on") {
		t.Errorf("drawn: %q", text)
	}
	for _, mode := range []string{"\x1b[?25l", "\x1b[?1049h", "\x1b[3", "\x1b[0m"} { // no cursor hidden, no other tty, no colours
		if strings.Contains(text, mode) {
			t.Errorf("%q was drawn: %q", mode, text)
		}
	}
	s.end()
}

func TestNothingIsWiderThanTheTerminal(t *testing.T) {
	t.Parallel()
	world, dir := newWorld(t), t.TempDir()
	s := serveIn(t, world, dir)
	small := newTTY(t, 60)
	if got := run(t.Context(), []string{"backfill", "create", "--watch", "--data-dir", dir}, []string{"TERM=xterm"}, small.side, small.side); got != exitOK {
		t.Errorf("ended with %d", got)
	}
	text := small.text()
	if !strings.Contains(text, "status     completed") {
		t.Errorf("drawn: %q", text)
	}
	for _, frame := range frames(text) {
		for _, line := range frame {
			if n := len([]rune(line)); n > 60 && !strings.HasPrefix(line, "job ") {
				t.Errorf("%d columns: %q", n, line)
			}
		}
	}
	s.end()
}

func TestADumbTerminalGetsLines(t *testing.T) {
	t.Parallel()
	world, dir := newWorld(t), t.TempDir()
	s := serveIn(t, world, dir)
	dumb := newTTY(t, 80)
	if got := run(t.Context(), []string{"backfill", "create", "--watch", "--data-dir", dir}, []string{"TERM=dumb"}, dumb.side, dumb.side); got != exitOK {
		t.Errorf("ended with %d", got)
	}
	if text := dumb.text(); strings.Contains(text, "\x1b") || !strings.Contains(text, "status     completed") {
		t.Errorf("drawn: %q", text)
	}
	s.end()
}

func TestADeviceIsNoTerminal(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]bool{"/dev/null": false, filepath.Join(t.TempDir(), "file"): false} {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if term.IsTerminal(f) != want || term.WidthOf(f) != 0 {
			t.Errorf("%s is a terminal: %t, of %d columns", path, term.IsTerminal(f), term.WidthOf(f))
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
	s := newTTY(t, 77)
	if !term.IsTerminal(s.side) || term.WidthOf(s.side) != 77 {
		t.Errorf("a terminal of 77 columns has %d", term.WidthOf(s.side))
	}
	_ = s.text()
}

func TestJSONIsMadeHarmlessOnATerminalOnly(t *testing.T) {
	t.Parallel()
	const value, safe = "\"\u009b31m\"", `"\u009b31m"`
	var piped strings.Builder
	s := newTTY(t, 77)
	for _, w := range []io.Writer{&piped, s.side} {
		if err := term.PrintJSON(w, []byte(value)); err != nil {
			t.Fatal(err)
		}
	}
	if piped.String() != value+"\n" {
		t.Errorf("piped: %q", piped.String())
	}
	if text := s.text(); text != safe+"\r\n" {
		t.Errorf("on the terminal: %q", text)
	}
}
