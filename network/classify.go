package network

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
)

// maxMessage cuts what a host says of its error, which ends in logs and rows.
const maxMessage = 200

// brokenReason classes an attempt that brought no answer.
func brokenReason(err error) Reason {
	var (
		dns  *net.DNSError
		op   *net.OpError
		nerr net.Error
	)
	switch {
	case errors.Is(err, errRefused):
		return ReasonRefusedAddress
	case errors.As(err, &dns):
		return ReasonDNS
	case errors.Is(err, errTooSlow), errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &nerr) && nerr.Timeout():
		return ReasonTimeout
	case isTLS(err):
		return ReasonTLS
	case errors.As(err, &op), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		return ReasonConnect
	case strings.Contains(err.Error(), "malformed"), strings.Contains(err.Error(), "response headers exceeded"):
		return ReasonBadAnswer // it answered, in something that is not HTTP
	default:
		return ReasonConnect
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
func bodyReason(err error) Reason {
	var (
		corrupt flate.CorruptInputError
		nerr    net.Error
	)
	switch {
	case errors.Is(err, errTooSlow), errors.As(err, &nerr) && nerr.Timeout():
		return ReasonTimeout
	case errors.As(err, &corrupt), errors.Is(err, gzip.ErrHeader), errors.Is(err, gzip.ErrChecksum):
		return ReasonBadAnswer
	default:
		return ReasonCutBody
	}
}

// isHTML tells whether an answer is a web page, whatever was asked. Some say
// that it is JSON.
func isHTML(h http.Header, body []byte) bool {
	if kind, _, err := mime.ParseMediaType(h.Get("Content-Type")); err == nil {
		if kind == "text/html" || kind == "application/xhtml+xml" {
			return true
		}
	}
	return bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n\ufeff"), []byte("<"))
}

// xrpcError is the body of a refusal.
type xrpcError struct {
	Name    string `json:"error"`
	Message string `json:"message"`
}

// refusal turns an answer that is neither 200 nor a redirect into an error, and
// tells whether the host itself gave it.
func refusal(q call, r *received) (e *Error, alive bool) {
	e = &Error{Op: q.op, Host: q.host, Status: r.status}
	html := isHTML(r.header, r.body)
	var x xrpcError
	if !html && shallow(r.body) && json.Unmarshal(r.body, &x) == nil {
		e.Name, e.Message = cut(x.Name), cut(x.Message)
	}
	proxied := html || r.status >= 520 && r.status <= 530 ||
		r.status == http.StatusBadGateway || r.status == http.StatusServiceUnavailable || r.status == http.StatusGatewayTimeout
	e.Reason = refusalReason(r.status, e.Name, e.Message, html)
	return e, !proxied
}

func refusalReason(status int, name, message string, html bool) Reason {
	if status < 500 && !html {
		if reason, ok := accountReason(status, name, message); ok {
			return reason
		}
	}
	switch {
	case status >= 500:
		return ReasonHTTP5xx
	case html || status < 400:
		return ReasonBadAnswer
	case status == http.StatusRequestTimeout:
		return ReasonTimeout
	case status == http.StatusTooEarly:
		return ReasonBadAnswer
	default:
		return ReasonHTTP4xx
	}
}

// accountReason reads what hosts say of an account that they do not serve.
func accountReason(status int, name, message string) (Reason, bool) {
	switch name {
	case "RepoNotFound", "AccountNotFound":
		return ReasonNotFound, true
	case "RepoTakendown", "AccountTakedown", "AccountTakendown":
		return ReasonTakenDown, true
	case "RepoSuspended", "AccountSuspended":
		return ReasonSuspended, true
	case "RepoDeactivated", "AccountDeactivated", "RepoInactive":
		return ReasonDeactivated, true
	case "RepoDeleted", "AccountDeleted":
		return ReasonDeleted, true
	case "RepoNotSynchronized":
		return ReasonBadAnswer, true
	case "NotFound":
		// With 404 it is as likely the method that was not found.
		return ReasonNotFound, status == http.StatusBadRequest
	}
	// The reference PDS answers listRecords so for accounts that are missing,
	// moved, deactivated or taken down: which of these, getRepoStatus tells.
	if strings.HasPrefix(strings.ToLower(message), "could not find repo") {
		return ReasonNotFound, true
	}
	return "", false
}

// missing tells whether a host refused because it has no such method.
func (e *Error) missing() bool {
	switch {
	case e.Name == "MethodNotImplemented", e.Name == "XRPCNotSupported", e.Name == "InvalidMethod":
		return true
	case e.Status == http.StatusNotImplemented, e.Status == http.StatusMethodNotAllowed:
		return true
	default:
		return e.Status == http.StatusNotFound && e.Reason == ReasonHTTP4xx
	}
}

// cut makes a host's words fit for a log: one line of bounded length.
func cut(s string) string {
	s = strings.ToValidUTF8(s[:min(len(s), maxMessage)], "")
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
}
