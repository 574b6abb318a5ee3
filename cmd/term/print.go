package term

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// PrintJSON prints what the server answered, indented.
func PrintJSON(w io.Writer, data json.RawMessage) error {
	var out bytes.Buffer
	if err := json.Indent(&out, bytes.TrimSpace(data), "", "  "); err != nil {
		return fmt.Errorf("print the answer: %w", err)
	}
	_, err := fmt.Fprintln(JSONTo(w), out.String())
	return err
}

// JSONTo is where JSON is printed: as it is, but on a terminal without what could
// command that.
func JSONTo(w io.Writer) io.Writer {
	if IsTerminal(w) {
		return &escaper{w: w}
	}
	return w
}

// escaper writes JSON on, with what a terminal does not show as it is replaced by escapes,
// which mean the same.
type escaper struct {
	w    io.Writer
	rest []byte // of a character that has not come whole yet
}

func (e *escaper) Write(p []byte) (int, error) {
	in := append(e.rest, p...)
	out := make([]byte, 0, len(in))
	for len(in) > 0 && utf8.FullRune(in) {
		c, n := utf8.DecodeRune(in)
		if c == '\n' || c == '\t' || c == '\r' || isShown(c) && (c != utf8.RuneError || n > 1) {
			out = append(out, in[:n]...)
		} else {
			out = appendEscaped(out, c)
		}
		in = in[n:]
	}
	e.rest = append([]byte(nil), in...)
	if _, err := e.w.Write(out); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Number prints n with separators, and a dash for what is not known.
func Number(n *int64) string {
	if n == nil {
		return "-"
	}
	digits := fmt.Sprint(*n)
	var out strings.Builder
	for i, d := range digits {
		if i > 0 && digits[i-1] != '-' && (len(digits)-i)%3 == 0 {
			out.WriteByte(',')
		}
		out.WriteRune(d)
	}
	return out.String()
}

// Count prints a number that is known.
func Count[N int | int64 | uint64](n N) string { return Number(new(int64(n))) }

// Many prints a number with its noun.
func Many(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return Count(n) + " " + noun
}

// Span prints a time in seconds by its two largest units.
func Span(seconds int64) string {
	for _, u := range []struct {
		name, next string
		size, part int64
	}{{"d", "h", 24 * 60 * 60, 60 * 60}, {"h", "m", 60 * 60, 60}, {"m", "s", 60, 1}} {
		if seconds < u.size {
			continue
		}
		whole := fmt.Sprintf("%d%s", seconds/u.size, u.name)
		if rest := seconds % u.size / u.part; rest > 0 {
			whole += fmt.Sprintf("%d%s", rest, u.next)
		}
		return whole
	}
	return fmt.Sprintf("%ds", seconds)
}

// Text prints what may be unknown.
func Text(s *string, unknown string) string {
	if s == nil {
		return unknown
	}
	return *s
}

// Age prints how old an index is.
func Age(seconds *int64) string {
	switch {
	case seconds == nil:
		return "never read"
	case *seconds < 60:
		return "under a minute"
	default:
		return Span(*seconds / 60 * 60)
	}
}

// Size prints a number of bytes.
func Size(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	f, names := float64(n)/unit, "KMGTPE"
	for f >= unit && len(names) > 1 {
		f, names = f/unit, names[1:]
	}
	return fmt.Sprintf("%.1f %ciB", f, names[0])
}
