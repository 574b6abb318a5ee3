package server

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"strconv"
	"strings"
)

// ParsePublicURL reads the URL under which clients reach the server, as it is configured.
// Its host comes out in lower case, and its path without a slash at the end: the paths of
// the routes follow it.
func ParsePublicURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil {
		if bad, is := errors.AsType[*url.Error](err); is {
			err = bad.Err
		}
		return nil, fmt.Errorf("%q is no URL, such as https://appview.example.com or https://example.com/appview: %w", text, err)
	}
	wrong := ""
	switch {
	case u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "":
		wrong = "it must begin with https:// or http:// and a host"
	case !validHost(u.Hostname()):
		wrong = "its host is no host name or address: write a name of other letters in its xn-- form"
	case !validPort(u.Port()):
		wrong = "its port must be from 1 to 65535"
	case u.User != nil:
		wrong = "it must hold no user and no password"
	case u.RawQuery != "" || u.ForceQuery || strings.Contains(text, "#"):
		wrong = "it must have no query and no fragment"
	case !validBase(u.Path):
		wrong = "its path must have no empty part, no . and no .."
	}
	if wrong != "" {
		return nil, fmt.Errorf("%q cannot be where clients reach the server, such as https://appview.example.com or https://example.com/appview: %s", u.Redacted(), wrong)
	}
	u.Host = strings.ToLower(u.Host)
	u.Path, u.RawPath = strings.TrimSuffix(u.Path, "/"), strings.TrimSuffix(u.RawPath, "/")
	return u, nil
}

// validBase reports whether routes may stand behind the path p.
func validBase(p string) bool {
	return p == "" || p == "/" || path.Clean(p) == strings.TrimSuffix(p, "/")
}

// validPort reports whether the port of a URL can be one. A URL may have none.
func validPort(port string) bool {
	n, err := strconv.Atoi(port)
	return port == "" || err == nil && n >= 1 && n <= 65535
}
