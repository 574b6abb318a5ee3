package term

import (
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/mattn/go-runewidth"
	"golang.org/x/term"
)

// IsTerminal reports whether somebody watches what is written to stream, or types
// what is read from it.
func IsTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// WidthOf is how many columns the terminal has that w writes to. It is 0 where
// there is no terminal: nothing has to fit then.
func WidthOf(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok {
		return 0
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return width
}

// Plain is s without what could break a line, command a terminal, or show something else
// than what is there: others have written some of it. White space and controls become
// blanks; what is not to be seen, or turns the order of letters around, becomes an escape.
func Plain(s string) string {
	var out []byte
	for _, c := range s {
		switch {
		case unicode.IsSpace(c), unicode.IsControl(c):
			out = append(out, ' ')
		case isShown(c):
			out = utf8.AppendRune(out, c)
		default:
			out = appendEscaped(out, c)
		}
	}
	return string(out)
}

// Characters that are not seen themselves, and that scripts and emoji cannot do without.
const (
	zeroWidthNonJoiner = '\u200c'
	zeroWidthJoiner    = '\u200d'
)

// isShown reports whether a terminal shows a character as it is. Those that it does not
// can make a text look like another: U+202E turns around what follows.
func isShown(c rune) bool {
	return unicode.IsGraphic(c) || c == zeroWidthJoiner || c == zeroWidthNonJoiner
}

// appendEscaped appends a character as JSON escapes it.
func appendEscaped(out []byte, c rune) []byte {
	if hi, lo := utf16.EncodeRune(c); hi != utf8.RuneError {
		return fmt.Appendf(out, `\u%04x\u%04x`, hi, lo)
	}
	return fmt.Appendf(out, `\u%04x`, c)
}

// Cut shortens s to so many columns.
func Cut(s string, width int) string { return runewidth.Truncate(s, width, "…") }

// Wrap breaks s between words into lines of so many columns. A word that is longer
// stays whole: it may be there to be copied.
func Wrap(s string, width int) (lines []string) {
	line := ""
	for word := range strings.FieldsSeq(s) {
		switch {
		case line == "":
			line = word
		case width > 0 && runewidth.StringWidth(line)+1+runewidth.StringWidth(word) > width:
			lines, line = append(lines, line), word
		default:
			line += " " + word
		}
	}
	return append(lines, line)
}
