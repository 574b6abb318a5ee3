// Package answertest helps tests of what refuses clients.
package answertest

import (
	"errors"
	"strings"

	"appview/server/answer"
)

// RefusedWell reports whether an error is an answer to the client, in one line.
func RefusedWell(err error) bool {
	f, is := errors.AsType[answer.Failure](err)
	return is && f.Status >= 400 && f.Status < 500 && f.Text != "" && !strings.ContainsAny(f.Text, "\r\n")
}
