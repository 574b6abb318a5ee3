package answer

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestAcceptEncodingIsRead(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]bool{
		"": false, "gzip": true, "br, gzip": true, "x-gzip": false, "gzip;q=0": false, "gzip; q=0.000": false, "gzip;q=1": true,
		"gzip;q=x": false, "identity": false, "deflate,GZIP ; q=0.1": true,
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		r.Header.Set("Accept-Encoding", value)
		if got := AcceptsGzip(r); got != want {
			t.Errorf("%q: %t", value, got)
		}
	}
}
