package cmd

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

// TestTerminalIsNotCommanded has everything that others can write come to where it
// is printed.
func TestTerminalIsNotCommanded(t *testing.T) {
	t.Parallel()
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadGateway)
		_, _ = w.Write([]byte(`{"error":"the relay says: \u001b]0;owned\u0007\u009d0;owned\u009c\nand more"}`))
	}))
	defer other.Close()
	code, _, stderr := runs(t, nil, "stats", "--url", other.URL, "--key", testKey)
	if code != exitError || stderr != "appview: the relay says:  ]0;owned  0;owned ; and more\n" {
		t.Errorf("ended with %d: %q", code, stderr)
	}
}
