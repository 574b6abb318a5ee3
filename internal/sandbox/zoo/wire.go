package zoo

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"strings"
	"time"

	"appview/internal/sandbox"
)

const (
	// bombSize is what GzipBomb becomes: far past every limit on a page.
	bombSize = 160 << 20
	// endlessSize is where EndlessBody ends after all, so that a reader without a
	// limit does not take the machine with it.
	endlessSize = 192 << 20
	dripEvery   = 20 * time.Millisecond
)

func wireZoo() []Behaviour {
	return []Behaviour{Gzipped(), RedirectLoop(), RedirectAstray(), ServerErrors()}
}

func compress(b []byte) []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	_, _ = z.Write(b) // to memory
	_ = z.Close()
	return out.Bytes()
}

// Gzipped compresses every answer, as many hosts do for who takes it.
func Gzipped() Behaviour {
	f := sound(func(a sandbox.Answer) sandbox.Answer {
		a.Header.Set("Content-Encoding", "gzip")
		a.Body = compress(a.Body)
		return a
	})
	return Behaviour{Name: "gzipped", fault: func(*sandbox.World, sandbox.Request) sandbox.Fault { return f }}
}

// GzipBomb answers listRecords with a few kilobytes that become 160 MiB. They are
// of several members, as gzip allows, so that only one has to be compressed.
func GzipBomb() Behaviour {
	body := compress([]byte(`{"records":[],"x":"`))
	body = append(body, bytes.Repeat(compress(bytes.Repeat([]byte(" "), 1<<20)), bombSize>>20)...)
	body = append(body, compress([]byte(`"}`))...)
	return Behaviour{Name: "gzip bomb", Listed: failed("too_large"), fault: on(sandbox.Fault{
		Status: http.StatusOK, Header: http.Header{"Content-Type": {contentJSON}, "Content-Encoding": {"gzip"}}, Body: body,
	}, sandbox.MethodListRecords)}
}

// EndlessBody answers listRecords with a page that does not end, for as long as
// a sane reader stays.
func EndlessBody() Behaviour {
	return Behaviour{Name: "endless body", Listed: failed("too_large"), fault: on(sandbox.Fault{
		Status: http.StatusOK, Header: http.Header{"Content-Type": {contentJSON}},
		Body: []byte(`{"records":[`), Endless: endlessSize,
	}, sandbox.MethodListRecords)}
}

// DrippingBody answers listRecords a byte at a time.
func DrippingBody() Behaviour {
	return Behaviour{Name: "dripping body", Listed: failed("timeout"), fault: on(sandbox.Fault{Drip: dripEvery}, sandbox.MethodListRecords)}
}

// RedirectLoop sends every request about a repo to where it came from.
func RedirectLoop() Behaviour {
	return Behaviour{
		Name: "redirect loop", Listed: failed("bad_answer"), Whole: failed("bad_answer"),
		fault: func(_ *sandbox.World, r sandbox.Request) sandbox.Fault {
			if r.Part != sandbox.PartPDS {
				return sandbox.Fault{}
			}
			return sandbox.Fault{Status: http.StatusFound, Header: http.Header{"Location": {"?did=" + r.DID + "&repo=" + r.DID}}}
		},
	}
}

// RedirectAstray sends every request about a repo to an address with a user name.
func RedirectAstray() Behaviour {
	return Behaviour{
		Name: "redirect astray", Listed: failed("bad_endpoint"), Whole: failed("bad_endpoint"),
		fault: func(_ *sandbox.World, r sandbox.Request) sandbox.Fault {
			if r.Part != sandbox.PartPDS {
				return sandbox.Fault{}
			}
			return sandbox.Fault{Status: http.StatusFound, Header: http.Header{"Location": {strings.Replace(r.Host, "http://", "http://user@", 1)}}}
		},
	}
}

// ServerErrors answers every request about a repo with a 500.
func ServerErrors() Behaviour {
	return Behaviour{
		Name: "server errors", Listed: failed("http_5xx"), Whole: failed("http_5xx"),
		fault: func(_ *sandbox.World, r sandbox.Request) sandbox.Fault {
			if r.Part != sandbox.PartPDS {
				return sandbox.Fault{}
			}
			return sandbox.Fault{
				Status: http.StatusInternalServerError, Header: http.Header{"Content-Type": {contentJSON}},
				Body: []byte(`{"error":"InternalServerError","message":"Internal Server Error"}`),
			}
		},
	}
}
