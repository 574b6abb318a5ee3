package control

import (
	"bytes"
	"context"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/google/uuid"

	"appview/internal/api"
	"appview/server/answer"
	"appview/store/admin"
	"appview/store/jobs"
)

// making is what makes a job, and the answer to that.
type making struct {
	route  string // by its name in the description
	asked  any    // all that is asked for beside it
	do     func(context.Context) (job *jobs.Job, made bool, err error)
	answer func(job *jobs.Job, made bool) answer.Reply
}

// once carries out a request that makes a job. Two requests are the same if their route
// and what was read from their path and body are: spaces, the order of members, and what
// is null make no difference.
func (ctl *Control) once(r *http.Request, m making) (answer.Reply, error) {
	ctx := answer.Detached(r)
	key, given, err := idempotencyKey(r)
	if err != nil {
		return answer.Reply{}, err
	}
	if given {
		named, err := ctl.idempotency(r, key, m)
		if err != nil {
			return answer.Reply{}, err
		}
		ctx = jobs.WithIdempotency(ctx, named)
	}
	job, made, err := m.do(ctx)
	if again, is := errors.AsType[*jobs.ReplyError](err); is {
		return ctl.again(again.Reply), nil
	}
	switch {
	case errors.Is(err, jobs.ErrOtherRequest):
		return answer.Reply{}, answer.Failure{
			Status: http.StatusConflict,
			Text:   fmt.Sprintf("the %s %s was sent with another path or body within the last 24 hours: choose another one", api.IdempotencyKey, answer.Quoted(key)),
		}
	case err != nil:
		return answer.Reply{}, err
	}
	return m.answer(job, made), nil
}

// idempotencyKey is the request's, if it has one.
func idempotencyKey(r *http.Request) (key string, given bool, err error) {
	values := r.Header.Values(api.IdempotencyKey)
	switch len(values) {
	case 0:
		return "", false, nil
	case 1:
		key = values[0]
	default:
		return "", false, answer.BadRequest("more than one %s header was sent", api.IdempotencyKey)
	}
	if n := len(key); n < 1 || n > jobs.MaxIdempotencyKey {
		return "", false, answer.BadRequest("the %s has %d characters, it must have 1 to %d", api.IdempotencyKey, n, jobs.MaxIdempotencyKey)
	}
	for _, c := range []byte(key) {
		if c < ' ' || c > '~' {
			return "", false, answer.BadRequest("the %s holds a character that is not printable ASCII", api.IdempotencyKey)
		}
	}
	return key, true, nil
}

func (ctl *Control) idempotency(r *http.Request, key string, m making) (jobs.Idempotency, error) {
	owner, err := ctl.owner(r)
	if err != nil {
		return jobs.Idempotency{}, err
	}
	asked, err := json.Marshal([]any{m.route, m.asked})
	if err != nil {
		return jobs.Idempotency{}, fmt.Errorf("hash request: %w", err)
	}
	return jobs.Idempotency{Owner: owner, Key: key, Request: sha256.Sum256(asked), Reply: func(job *jobs.Job, made bool) (jobs.Reply, error) {
		rep := m.answer(job, made)
		var body bytes.Buffer
		err := answer.Encode(&body, rep.Body)
		return jobs.Reply{Status: rep.Status, Location: rep.Location, Body: body.String()}, err
	}}, nil
}

// again is a reply as it was.
func (ctl *Control) again(was jobs.Reply) answer.Reply {
	body := ctl.out.Buffer()
	*body = append((*body)[:0], was.Body...)
	return answer.Reply{Status: was.Status, Location: was.Location, JSON: body}
}

// owner is whose the request's Idempotency-Key is.
func (ctl *Control) owner(r *http.Request) (uuid.UUID, error) {
	by := admin.ActorIn(r.Context())
	switch {
	case by == nil:
		return uuid.Nil, nil
	case by.Kind == api.ActorEnvironment:
		return ctl.environment()
	default:
		return by.KeyID, nil
	}
}

// environmentRounds makes the configured key hard to guess from its owner, which stands
// in the file and its backups: people may have thought it up.
const environmentRounds = 100_000

// environmentOwner is whose the Idempotency-Keys are that come with the configured key. It
// is the same in the next process, and another one for another key.
func environmentOwner(adminKey string) (uuid.UUID, error) {
	derived, err := pbkdf2.Key(sha256.New, adminKey, []byte("appview "+api.IdempotencyKey), environmentRounds, len(uuid.Nil))
	if err != nil {
		return uuid.Nil, fmt.Errorf("derive the owner of an %s: %w", api.IdempotencyKey, err)
	}
	return uuid.UUID(derived), nil
}
