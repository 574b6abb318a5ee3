package cmd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/google/uuid"
)

const (
	// createEvery is how often a lost request is repeated, and createLost for how long:
	// long enough for a server to be started again.
	createEvery = 250 * time.Millisecond
	createLost  = 15 * time.Second
)

// lostError is a connection that ended before the answer had come: what was asked for may
// have been done.
type lostError struct{ error }

func (e lostError) Unwrap() error { return e.error }

// asLost is err as a lostError, if it is one: what does not speak HTTP gives another.
func asLost(err error) error {
	_, broken := errors.AsType[*net.OpError](err)
	if broken || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return lostError{err}
	}
	return err
}

// unreachableError is a server to which there was no connection.
type unreachableError struct{ error }

func (e unreachableError) Unwrap() error { return e.error }

// create has the server make a job. Where the answer is lost, because the server is killed
// or something on the way breaks, it asks again, and there is one job all the same.
func (c *client) create(ctx context.Context, path string, body []byte) (json.RawMessage, error) {
	once := *c
	once.idempotencyKey = uuid.NewString()
	tick := time.NewTicker(createEvery)
	defer tick.Stop()
	var lost time.Time // since when the outcome is not known; zero: it is
	for {
		var r io.Reader
		if body != nil {
			r = bytes.NewReader(body)
		}
		answer, err := once.call(ctx, http.MethodPost, path, r)
		_, refused := errors.AsType[answerError](err)
		_, unreachable := errors.AsType[unreachableError](err)
		_, broken := errors.AsType[lostError](err)
		switch {
		case err == nil, refused && !mayPass(err), lost.IsZero() && !broken:
			return answer, err
		case lost.IsZero():
			lost = time.Now()
		case time.Since(lost) > createLost, !broken && !unreachable && !refused:
			return nil, doubtful(err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, doubtful(err)
		}
	}
}

// doubtful says of a request without an answer that it may have been carried out.
func doubtful(err error) error {
	return fmt.Errorf("%w: whether the job was created is not known, appview backfill list shows it", err)
}
