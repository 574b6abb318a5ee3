package cmd

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// printJSON prints what the server answered, indented.
func printJSON(w io.Writer, data json.RawMessage) error {
	var out bytes.Buffer
	if err := json.Indent(&out, bytes.TrimSpace(data), "", "  "); err != nil {
		return fmt.Errorf("print the answer: %w", err)
	}
	_, err := fmt.Fprintln(jsonTo(w), out.String())
	return err
}

// jsonTo is where JSON is printed: as it is, but on a terminal without what could
// command that.
func jsonTo(w io.Writer) io.Writer {
	if isTerminal(w) {
		return &escaper{w: w}
	}
	return w
}

// escaper writes JSON on, with the control characters that JSON lets stand as
// they are (U+007F to U+009F) as escapes, which mean the same.
type escaper struct {
	w    io.Writer
	lead bool // 0xC2, with which U+0080 to U+00BF begin, is held back
}

func (e *escaper) Write(p []byte) (int, error) {
	const lead = 0xC2
	out := make([]byte, 0, len(p)+1)
	for _, b := range p {
		switch held := e.lead; {
		case b == 0x7F, held && b >= 0x80 && b <= 0x9F:
			out = fmt.Appendf(out, `\u00%02x`, b)
		case held:
			out = append(out, lead, b)
		case b != lead:
			out = append(out, b)
		}
		e.lead = b == lead && !e.lead
	}
	if _, err := e.w.Write(out); err != nil {
		return 0, err
	}
	return len(p), nil
}

// number prints n with separators, and a dash for what is not known.
func number(n *int64) string {
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

// many prints a number with its noun.
func many(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	i := int64(n)
	return number(&i) + " " + noun
}

// span prints a time in seconds by its two largest units.
func span(seconds int64) string {
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

// text prints what may be unknown.
func text(s *string, unknown string) string {
	if s == nil {
		return unknown
	}
	return *s
}

// age prints how old an index is.
func age(seconds *int64) string {
	switch {
	case seconds == nil:
		return "never read"
	case *seconds < 60:
		return "under a minute"
	default:
		return span(*seconds / 60 * 60)
	}
}

// size prints a number of bytes.
func size(n int64) string {
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
