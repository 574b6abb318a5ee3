package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/coder/websocket"

	"appview/internal/sandbox"
)

// Bounds of what may be asked for.
const (
	maxCollections = 100
	maxDIDs        = 10_000
	maxUpdate      = 10 << 20 // of an options_update
	timeCursor     = 1e15     // a cursor from here on is a time in microseconds
)

// filter is what a subscriber wants. Nothing given is everything.
type filter struct {
	kinds       []string
	collections []string
	dids        map[string]bool
}

func (f *filter) wants(it item, shape int) bool {
	if it.kind == "" {
		return true
	}
	if it.wire[shape] == nil || len(f.kinds) > 0 && !slices.Contains(f.kinds, string(it.kind)) {
		return false
	}
	if len(f.dids) > 0 && !f.dids[it.did.String()] {
		return false
	}
	return it.kind != sandbox.EventCommit || len(f.collections) == 0 || slices.ContainsFunc(f.collections, func(c string) bool {
		prefix, wild := strings.CutSuffix(c, "*")
		return c == it.collection.String() || wild && strings.HasPrefix(it.collection.String(), prefix)
	})
}

// newFilter checks what was asked for.
func newFilter(kinds, collections, dids []string) (*filter, error) {
	if len(collections) > maxCollections {
		return nil, fmt.Errorf("too many collections: %d > %d", len(collections), maxCollections)
	}
	if len(dids) > maxDIDs {
		return nil, fmt.Errorf("too many DIDs: %d > %d", len(dids), maxDIDs)
	}
	for _, k := range kinds {
		if !slices.Contains([]string{"commit", "identity", "account", "sync"}, k) {
			return nil, fmt.Errorf("unknown kind %q", k)
		}
	}
	if len(collections) > 0 && len(kinds) > 0 && !slices.Contains(kinds, "commit") {
		return nil, errors.New("collections without commits")
	}
	f := &filter{kinds: kinds, collections: collections, dids: make(map[string]bool, len(dids))}
	for _, did := range dids {
		f.dids[did] = true
	}
	return f, nil
}

// filterOf reads a query of a shape.
func filterOf(q url.Values, shape int) (*filter, error) {
	if shape == shapeV1 {
		return newFilter(nil, q["wantedCollections"], q["wantedDids"])
	}
	for name := range q {
		if !slices.Contains([]string{"kinds", "collections", "dids", "cursor", "maxMessageSizeBytes"}, name) {
			return nil, fmt.Errorf("unknown parameter %q", name)
		}
	}
	return newFilter(q["kinds"], q["collections"], q["dids"])
}

// jetstream serves one shape.
func (s *Source) jetstream(shape int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		cursor, given, ok := cursorOf(r)
		f, err := filterOf(r.URL.Query(), shape)
		if err != nil || !ok {
			refuse(w, http.StatusBadRequest, "InvalidRequest", fmt.Sprint("invalid parameters: ", err))
			return
		}
		hangUp, ok := s.enter()
		if !ok {
			s.fire("refuse")
			refuse(w, http.StatusServiceUnavailable, "Unavailable", "try again later")
			return
		}
		defer s.leave()
		if floor, old := s.tooOld(cursor, given, shape); old {
			refuse(w, http.StatusBadRequest, "CursorTooOld", "cursor is below the retention floor "+strconv.FormatInt(floor, 10))
			return
		}
		u := &subscription{source: s, hangUp: hangUp, typ: websocket.MessageText, shape: shape}
		u.beginJetstream(cursor, given)
		if err := u.accept(w, r); err != nil {
			return
		}
		var current atomic.Pointer[filter]
		current.Store(f)
		u.wanted = func(it item) bool { return current.Load().wants(it, shape) }
		u.serve(r.Context(), func(message []byte) error {
			if shape == shapeV2 {
				return errors.New("the client may not send messages")
			}
			f, err := updateOf(message)
			if err == nil {
				current.Store(f)
			}
			return err
		})
	})
}

// tooOld reports whether a cursor is refused, and the lowest seq that is not.
func (s *Source) tooOld(cursor int64, given bool, shape int) (floor int64, old bool) {
	e := s.journal.extent(s.oldest())
	old = given && shape == shapeV2 && cursor < timeCursor && cursor < e.floor
	return e.floor, old && !s.quiet()
}

// beginJetstream finds where a subscription begins: live, without a word, where the cursor
// is at the tip or past it; at the oldest item where it is too old.
func (u *subscription) beginJetstream(cursor int64, given bool) {
	s := u.source
	e := s.journal.extent(s.oldest())
	u.joined, u.at, u.epoch = e.end, e.end, e.epoch
	if !given {
		return
	}
	if cursor < timeCursor {
		if cursor < e.nextSeq && !s.legacy {
			u.at = s.journal.find(e.first, func(it item) bool { return it.seq >= cursor })
		}
		return
	}
	if cursor > s.now().UnixMicro() {
		return
	}
	u.at = s.journal.find(e.first, func(it item) bool { return it.at >= cursor })
	if u.shape == shapeV2 && cursor < s.oldest().UnixMicro() && !s.quiet() {
		u.first, _ = json.Marshal(map[string]any{"$type": "message", "payload": map[string]any{
			"$type": typeV2 + "#info", "name": "OutdatedCursor",
			"message": "the cursor was moved to seq " + strconv.FormatInt(e.floor, 10),
		}}) // it never fails
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sealed > 0 && u.at > s.sealed {
		u.at = max(s.sealed, e.first) // the active segment is read from its beginning
	}
}

// updateOf reads the options_update of a v1 client.
func updateOf(message []byte) (*filter, error) {
	var m struct {
		Type    string
		Payload struct{ WantedCollections, WantedDids []string }
	}
	if err := json.Unmarshal(message, &m); err != nil {
		return nil, fmt.Errorf("read a message: %w", err)
	}
	if m.Type != "options_update" {
		return nil, fmt.Errorf("unknown message %q", m.Type)
	}
	return newFilter(nil, m.Payload.WantedCollections, m.Payload.WantedDids)
}

// After waits until a source has items of at least so many seqs, or ctx ends.
func (s *Source) After(ctx context.Context, seq int64) error {
	for {
		s.journal.mu.Lock()
		next, moved := s.journal.next, s.journal.moved
		s.journal.mu.Unlock()
		if next > seq {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return fmt.Errorf("wait for seq %d: %w", seq, context.Cause(ctx))
		}
	}
}
