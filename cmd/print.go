package cmd

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
)

// printJSON prints what the server answered, indented.
func printJSON(w io.Writer, data json.RawMessage) error {
	var out bytes.Buffer
	if err := json.Indent(&out, bytes.TrimSpace(data), "", "  "); err != nil {
		return fmt.Errorf("print the answer: %w", err)
	}
	_, err := fmt.Fprintln(w, out.String())
	return err
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

// span prints a time in seconds by its two largest units.
func span(seconds int64) string {
	for _, u := range []struct {
		name string
		size int64
		next string
		part int64
	}{{"d", 24 * 60 * 60, "h", 60 * 60}, {"h", 60 * 60, "min", 60}, {"min", 60, "s", 1}} {
		if seconds < 2*u.size {
			continue
		}
		if rest := seconds % u.size / u.part; rest > 0 {
			return fmt.Sprintf("%d %s %d %s", seconds/u.size, u.name, rest, u.next)
		}
		return fmt.Sprintf("%d %s", seconds/u.size, u.name)
	}
	return fmt.Sprintf("%d s", seconds)
}

// text prints what may be unknown.
func text(s *string, unknown string) string {
	if s == nil {
		return unknown
	}
	return *s
}

// age prints how old an index is, in the two largest units.
func age(seconds *int64) string {
	if seconds == nil {
		return "never read"
	}
	d := time.Duration(*seconds) * time.Second
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%dd%dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%dm", d/time.Minute)
	default:
		return "under a minute"
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
