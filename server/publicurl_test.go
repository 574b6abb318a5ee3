package server

import (
	"strings"
	"testing"
)

func TestPublicURLIsRead(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"https://appview.example.com":          "https://appview.example.com",
		"https://appview.example.com/":         "https://appview.example.com",
		"HTTPS://AppView.Example.COM:8443/A/b": "https://appview.example.com:8443/A/b",
		"http://example.com/appview/":          "http://example.com/appview",
		"https://example.com/app%20view/":      "https://example.com/app%20view",
		"http://[2001:DB8::7]:3000":            "http://[2001:db8::7]:3000",
		"http://192.0.2.7":                     "http://192.0.2.7",
		"http://my_appview:3000":               "http://my_appview:3000",
		"https://xn--bcher-kva.example":        "https://xn--bcher-kva.example",
		"https://example.com.":                 "https://example.com.",
	} {
		if u, err := ParsePublicURL(text); err != nil || u.String() != want {
			t.Errorf("%s: %v, %v, want %s", text, u, err, want)
		}
	}
}

func TestPublicURLThatCannotBeIsRefused(t *testing.T) {
	t.Parallel()
	for text, why := range map[string]string{
		"":                                     "must begin with https://",
		"appview.example.com":                  "must begin with https://",
		"appview.example.com:3000":             "such as https://",
		"/appview":                             "must begin with https://",
		"//appview.example.com":                "must begin with https://",
		"ftp://appview.example.com":            "must begin with https://",
		"https:appview.example.com":            "must begin with https://",
		"https://":                             "must begin with https://",
		"https://:443":                         "must begin with https://",
		"https://exa mple.com":                 "is no URL",
		"https://b\u00fccher.example":          "in its xn-- form",
		"https://*.example.com":                "no host name",
		"https://a..example.com":               "no host name",
		"https://a.example, b.example":         "is no URL",
		"https://example.com:0":                "port must be from 1 to 65535",
		"https://example.com:65536":            "port must be from 1 to 65535",
		"https://example.com:x":                "is no URL",
		"https://me@example.com":               "no user",
		"https://me:secret@example.com":        "no user",
		"https://example.com?x=1":              "no query",
		"https://example.com?":                 "no query",
		"https://example.com#top":              "no fragment",
		"https://example.com#":                 "no fragment",
		"https://example.com//appview":         "no empty part",
		"https://example.com/appview//":        "no empty part",
		"https://example.com/a/../b":           "no empty part",
		"https://example.com/./b":              "no empty part",
		"https://example.com/%2e%2e/b":         "no empty part",
		"https://example.com/a\nb":             "is no URL",
		"https://" + strings.Repeat("a.", 130): "no host name",
	} {
		if u, err := ParsePublicURL(text); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%q: %v, %v, want %q", text, u, err, why)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: the password is shown: %v", text, err)
		}
	}
}
