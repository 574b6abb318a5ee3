package control

import (
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"

	"appview/internal/api"
	"appview/server/answer"
	"appview/store/admin"
)

// Bounds of a page of the audit log.
const (
	standardEvents = 100
	maxEvents      = 1000
)

func newEventBody(e admin.Event) api.Event {
	a := e.Actor
	return api.Event{
		At: api.Stamp(e.At),
		Actor: api.Actor{
			Kind: a.Kind, KeyID: api.Known(a.KeyID.String(), a.Kind == api.ActorKey),
			Prefix: api.Known(a.Prefix, a.Prefix != ""), Name: api.Known(a.Name, a.Name != ""),
		},
		Action: e.Action, Target: api.Known(e.Target, e.Target != ""), Detail: api.Known(e.Detail, e.Detail != ""), Outcome: e.Outcome,
	}
}

func (ctl *Control) listEvents(r *http.Request) (answer.Reply, error) {
	params, err := answer.Query(r, "cursor", "limit")
	if err != nil {
		return answer.Reply{}, err
	}
	limit, err := answer.LimitOf(params["limit"], standardEvents, maxEvents)
	if err != nil {
		return answer.Reply{}, err
	}
	below, err := parseEventCursor(params["cursor"])
	if err != nil {
		return answer.Reply{}, err
	}
	list, next, err := ctl.cfg.Store.Admin.Events(r.Context(), uint64(below), limit)
	if err != nil {
		return answer.Reply{}, err
	}
	page := api.Events{Events: make([]api.Event, len(list))}
	for i, e := range list {
		page.Events[i] = newEventBody(e)
	}
	if next != 0 {
		page.Cursor = eventCursor(next).String()
	}
	return answer.OK(page), nil
}

// eventCursor is where a page of the audit log ends.
type eventCursor uint64

// eventCursorKind tells the cursors of the audit log from others.
const eventCursorKind = "e1"

// String is the cursor as clients get it: no part of it is for them to read.
func (c eventCursor) String() string {
	return base64.RawURLEncoding.EncodeToString([]byte(eventCursorKind + "\x00" + strconv.FormatUint(uint64(c), 10)))
}

// parseEventCursor reads what String has written.
func parseEventCursor(text string) (eventCursor, error) {
	if text == "" {
		return 0, nil
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	number, isOurs := strings.CutPrefix(string(raw), eventCursorKind+"\x00")
	n, errNumber := strconv.ParseUint(number, 10, 64)
	if c := eventCursor(n); err == nil && isOurs && errNumber == nil && n > 0 && c.String() == text {
		return c, nil
	}
	return 0, answer.BadRequest("cursor %s was not made here: leave it out to begin anew", answer.Quoted(text))
}
