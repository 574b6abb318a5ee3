package transport

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
)

const (
	// maxInflation is how many times its length a compressed body may become. What
	// a repo is made of, hashes above all, does not come near; a bomb is five times
	// as much.
	maxInflation = 200
	// freeInflation is what every body may become, however short it was.
	freeInflation = 1 << 20
)

// errBomb says that a body inflates as only a bomb does.
var errBomb = fmt.Errorf("%w: it inflates more than %d times", errTooLarge, maxInflation)

// inflaters is a pool of inflaters: they are costly to make.
type inflaters struct{ pool sync.Pool }

// inflater is a body that is being inflated.
type inflater struct {
	pool    *inflaters
	body    io.ReadCloser
	wire    int64 // bytes that came
	total   int64 // bytes that they became
	begun   bool
	in      *bufio.Reader
	inflate *gzip.Reader
}

// open puts an inflater in the place of a body that is compressed. The transport
// could do the same, but would not say how much came over the wire.
func (is *inflaters) open(resp *http.Response) {
	if !strings.EqualFold(resp.Header.Get("Content-Encoding"), "gzip") {
		return
	}
	z, ok := is.pool.Get().(*inflater)
	if !ok {
		z = &inflater{in: bufio.NewReader(nil), inflate: new(gzip.Reader)}
	}
	*z = inflater{pool: is, body: resp.Body, in: z.in, inflate: z.inflate}
	z.in.Reset(onWire{z})
	resp.Body, resp.ContentLength = z, -1
}

// onWire counts the bytes that come.
type onWire struct{ *inflater }

// Read reads compressed bytes.
func (w onWire) Read(p []byte) (int, error) {
	n, err := w.body.Read(p)
	w.wire += int64(n)
	return n, err
}

// Read reads inflated bytes.
func (z *inflater) Read(p []byte) (int, error) {
	if !z.begun {
		if err := z.inflate.Reset(z.in); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF // not even a header
			}
			return 0, err
		}
		z.begun = true
	}
	n, err := z.inflate.Read(p)
	z.total += int64(n)
	if z.total > max(freeInflation, maxInflation*z.wire) {
		return n, errBomb
	}
	return n, err
}

// Close closes the body. Nothing may be read after it.
func (z *inflater) Close() error {
	err := z.body.Close()
	z.in.Reset(nil)
	z.pool.pool.Put(z)
	return err
}
