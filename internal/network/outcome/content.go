package outcome

import (
	"fmt"
	"strings"
)

// BadContent is the error of content that arrived as it was sent and cannot be used.
type BadContent struct {
	Reason Reason
	Err    error
}

// Bad makes a BadContent; its text is formatted as by fmt.Errorf.
func Bad(reason Reason, format string, args ...any) error {
	return &BadContent{reason, fmt.Errorf(format, args...)}
}

// Error says what is wrong with the content.
func (e *BadContent) Error() string { return e.Err.Error() }

// Unwrap gives the cause.
func (e *BadContent) Unwrap() error { return e.Err }

// maxMessage is the longest text of a host's that is logged or stored.
const maxMessage = 200

// OneLine makes a host's words fit for a log: one line of bounded length.
func OneLine(s string) string {
	s = strings.ToValidUTF8(s[:min(len(s), maxMessage)], "")
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}
