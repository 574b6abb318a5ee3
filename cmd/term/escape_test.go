package term

import (
	"errors"
	"strings"
	"testing"
	"time"

	"appview/internal/api"
)

// command is what a terminal would obey: to name its window, in two spellings.
const command = "\x1b]0;owned\a\u009d0;owned\u009c"

func TestDisplaysDoNotCommandTheTerminal(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	j := running()
	j.Reasons = map[string]int64{command: 3}
	j.Waiting = new(api.Waiting(command))
	d := plainDisplay{w: &out, now: time.Now}
	d.Job(j, nil)
	d.Hosts([]api.Host{{Endpoint: "https://a.example" + command, State: "down"}})
	if strings.ContainsAny(out.String(), "\x1b\a\u009c\u009d") || !strings.Contains(out.String(), "owned") {
		t.Errorf("printed %q", out.String())
	}
}

// trickle hands on one byte at a time.
type trickle struct{ to *escaper }

func (w trickle) Write(p []byte) (int, error) {
	for i := range p {
		if _, err := w.to.Write(p[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(p), nil
}

func TestJSONForATerminalMeansTheSame(t *testing.T) {
	t.Parallel()
	const (
		text = "{\"a\":\"\u009b31m \x7f \u0080\u009f\u00a0 é ÂÂ \u00bf 日本 😀 \u202e\u2066\u061c\u200b\ufeff\u2028\U000e0041 👩\u200d🚀\"}\n"
		safe = `{"a":"\u009b31m \u007f \u0080\u009f` + "\u00a0 é ÂÂ \u00bf 日本 😀 " + `\u202e\u2066\u061c\u200b\ufeff\u2028\udb40\udc41` + " 👩\u200d🚀\"}\n"
	)
	var all, parts strings.Builder
	for _, err := range []error{
		second((&escaper{w: &all}).Write([]byte(text))), second(trickle{&escaper{w: &parts}}.Write([]byte(text))),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if all.String() != safe || parts.String() != safe {
		t.Errorf("got  %q\nand  %q\nwant %q", all.String(), parts.String(), safe)
	}
	if _, err := (&escaper{w: broken{}}).Write([]byte(text)); !errors.Is(err, errBroken) {
		t.Errorf("got %v", err)
	}
}

func second(_ int, err error) error { return err }

func TestTextThatLooksLikeAnotherIsEscaped(t *testing.T) {
	t.Parallel()
	for text, shown := range map[string]string{
		"user\u202egpj.exe":               `user\u202egpj.exe`,
		"\u2066a\u2069\u200e\u200f\u061c": `\u2066a\u2069\u200e\u200f\u061c`,
		"zero\u200bwidth\ufeff\u00ad":     `zero\u200bwidth\ufeff\u00ad`,
		"tag\U000e0041":                   `tag\udb40\udc41`,
		"private\ue000":                   `private\ue000`,
		"line\u2028paragraph\u2029\u0085": "line paragraph  ",
		"\x1b[31mred\x9b":                 " [31mred\ufffd",
		"naïve 日本 👩\u200d🚀 می\u200cخواهم": "naïve 日本 👩\u200d🚀 می\u200cخواهم",
	} {
		if got := Plain(text); got != shown {
			t.Errorf("%q: %q, want %q", text, got, shown)
		}
	}
}

// errBroken is what writing to a broken ends with.
var errBroken = errors.New("it is broken")

// broken takes nothing.
type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errBroken }

func TestWhatSomebodySentDoesNotCommandTheTerminal(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	table := Table{Columns: []Column{Whole("A"), Whole("B")}}
	table.Add("x\x1b[2Jy\nz\t", "ü")
	if err := table.Print(&out); err != nil || strings.Contains(out.String(), "\x1b") || strings.Count(out.String(), "\n") != 2 {
		t.Errorf("printed %q, %v", out.String(), err)
	}
}
