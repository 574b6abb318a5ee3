package transport

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"os"
	"strings"

	"appview/internal/network/outcome"
	"appview/internal/record"
)

// sendReason classes an attempt that brought no answer.
func sendReason(err error) outcome.Reason {
	var (
		dns  *net.DNSError
		op   *net.OpError
		nerr net.Error
	)
	switch {
	case errors.Is(err, errNotPublic):
		return outcome.ReasonRefusedAddress
	case errors.As(err, &dns):
		return outcome.ReasonDNS
	case errors.Is(err, errTooSlow), errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &nerr) && nerr.Timeout():
		return outcome.ReasonTimeout
	case isTLS(err):
		return outcome.ReasonTLS
	case errors.As(err, &op), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		return outcome.ReasonConnect
	case strings.Contains(err.Error(), "malformed"), strings.Contains(err.Error(), "response headers exceeded"):
		return outcome.ReasonBadAnswer // it answered, in something that is not HTTP
	default:
		return outcome.ReasonConnect
	}
}

func isTLS(err error) bool {
	var (
		verify  *tls.CertificateVerificationError
		header  tls.RecordHeaderError
		alert   tls.AlertError
		unknown x509.UnknownAuthorityError
		name    x509.HostnameError
		invalid x509.CertificateInvalidError
	)
	return errors.As(err, &verify) || errors.As(err, &header) || errors.As(err, &alert) ||
		errors.As(err, &unknown) || errors.As(err, &name) || errors.As(err, &invalid) ||
		errors.Is(err, http.ErrSchemeMismatch) ||
		strings.Contains(err.Error(), "tls: ") // most of the package's errors have no type
}

// bodyReason classes an answer whose body did not come to its end.
func bodyReason(err error) outcome.Reason {
	var (
		corrupt flate.CorruptInputError
		nerr    net.Error
	)
	switch {
	case errors.Is(err, errTooSlow), errors.As(err, &nerr) && nerr.Timeout():
		return outcome.ReasonTimeout
	case errors.As(err, &corrupt), errors.Is(err, gzip.ErrHeader), errors.Is(err, gzip.ErrChecksum):
		return outcome.ReasonBadAnswer
	default:
		return outcome.ReasonCutBody
	}
}

// isHTML reports whether an answer is a web page, whatever was asked and whatever it
// says that it is: some pages say that they are JSON, and some JSON says that it is a page.
func isHTML(h http.Header, body []byte) bool {
	body = bytes.TrimLeft(withoutBOM(body), " \t\r\n")
	switch {
	case len(body) > 0 && body[0] == '<':
		return true
	case len(body) > 0 && (body[0] == '{' || body[0] == '['):
		return false
	}
	kind, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	return err == nil && (kind == "text/html" || kind == "application/xhtml+xml")
}

// withoutBOM removes the byte order mark that may stand before JSON, and is none of it.
func withoutBOM(body []byte) []byte { return bytes.TrimPrefix(body, []byte("\ufeff")) }

// xrpcError is the body of a refusal.
type xrpcError struct {
	Name    string `json:"error"`
	Message string `json:"message"`
}

// refusal turns an answer that is neither 200 nor a redirect into an error, and a 200
// that names one. It reports whether the host itself gave it.
func refusal(q Request, r *received) (e *Error, alive bool) {
	e = &Error{Op: q.Op, Host: q.Host, Status: r.status}
	html := isHTML(r.header, r.body)
	if body := withoutBOM(r.body); !html && record.IsShallow(body) {
		var x xrpcError
		if json.Unmarshal(body, &x) == nil {
			e.Name, e.Message = outcome.OneLine(x.Name), outcome.OneLine(x.Message)
		}
	}
	// Frameworks have a page for what they do not know: of a question that not every
	// host knows it is an answer.
	unknown := r.status == http.StatusNotFound || r.status == http.StatusMethodNotAllowed
	proxied := html && (!unknown || !q.Optional) || r.status >= 520 && r.status <= 530 ||
		r.status == http.StatusBadGateway || r.status == http.StatusServiceUnavailable || r.status == http.StatusGatewayTimeout
	e.Reason = refusalReason(r.status, e.Name, e.Message, html)
	return e, !proxied
}

// maxErrorBody is more than an error's name and message take.
const maxErrorBody = 4 << 10

// namesError reports whether a 200 is a refusal in what it says: it has an error's
// name, and no answer that is asked for has a member of that name.
func namesError(q Request, body []byte) bool {
	if q.Document || len(body) > maxErrorBody || !bytes.Contains(body, []byte(`"error"`)) {
		return false
	}
	name := ""
	err := record.ScanObject(body, func(s *record.Scanner, key string) (err error) {
		if key == "error" {
			name, err = s.Text()
			return err
		}
		err = s.Skip()
		return err
	})
	return err == nil && name != ""
}

func refusalReason(status int, name, message string, html bool) outcome.Reason {
	if status < 500 && !html {
		if reason, ok := accountReason(status, name, message); ok {
			return reason
		}
	}
	switch {
	case status >= 500:
		return outcome.ReasonHTTP5xx
	case html || status < 400:
		return outcome.ReasonBadAnswer
	case status == http.StatusRequestTimeout:
		return outcome.ReasonTimeout
	case status == http.StatusTooEarly:
		return outcome.ReasonBadAnswer
	default:
		return outcome.ReasonHTTP4xx
	}
}

// accountReason reads what hosts say of an account that they do not serve.
func accountReason(status int, name, message string) (outcome.Reason, bool) {
	word, of := accountWord(name)
	switch {
	case of && word == "notfound":
		return outcome.ReasonNotFound, true
	case of && stateReason(word) != "":
		return stateReason(word), true
	case word == "notfound":
		// With 404 it is as likely the method that was not found.
		return outcome.ReasonNotFound, status == http.StatusBadRequest
	}
	// The reference PDS answers listRecords so for accounts that are missing,
	// moved, deactivated or taken down: which of these, getRepoStatus tells.
	if strings.HasPrefix(strings.ToLower(message), "could not find repo") {
		return outcome.ReasonNotFound, true
	}
	return "", false
}

// accountWord is a host's word without what hosts differ in: its letters alone, all
// small, without the repo or account in front. It reports whether one was there.
func accountWord(text string) (word string, ofAccount bool) {
	word = Letters(text)
	for _, of := range []string{"repo", "account"} {
		if rest, ok := strings.CutPrefix(word, of); ok {
			return rest, true
		}
	}
	return word, false
}

// StateReason is the reason that hosts mean by a text for the state of an account; empty for
// one that is not known.
func StateReason(text string) outcome.Reason {
	word, _ := accountWord(text)
	return stateReason(word)
}

func stateReason(word string) outcome.Reason {
	switch word {
	case "takendown", "takedown":
		return outcome.ReasonTakenDown
	case "suspended", "suspend":
		return outcome.ReasonSuspended
	case "deactivated", "deactivate", "inactive":
		return outcome.ReasonDeactivated
	case "deleted":
		return outcome.ReasonDeleted
	case "notsynchronized", "notsynchronised", "desynchronized", "desynchronised", "throttled":
		return outcome.ReasonBadAnswer // of the host, not of the account: it will pass
	default:
		return ""
	}
}

// Letters are the letters of a text, all small: spellings of one word differ in the rest.
func Letters(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'A' && r <= 'Z':
			return r + ('a' - 'A')
		case r >= 'a' && r <= 'z':
			return r
		default:
			return -1
		}
	}, text)
}
