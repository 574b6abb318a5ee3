package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/sandbox"
)

// The two shapes of a Jetstream.
const (
	shapeV1 = iota
	shapeV2
)

// PathV1 and PathV2 are where the shapes of a Jetstream are, behind its URL.
const (
	PathV1 = "/subscribe"
	PathV2 = "/xrpc/" + typeV2

	typeV2 = "network.bsky.jetstream.subscribeEvents"
)

// Every server has a bound in time and memory.
const (
	readHeaderTimeout = 10 * time.Second
	maxHeaderBytes    = 64 << 10
)

func (s *Streams) addJetstream(name string, j Jetstream, cfg Config) error {
	var lc net.ListenConfig
	ln, err := lc.Listen(context.Background(), "tcp4", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen for %s: %w", name, err)
	}
	if j.LookBack == 0 {
		if j.LookBack = jetLookBack; j.Legacy {
			j.LookBack = jetLegacyLookBk
		}
	}
	source := newSource(name, "http://"+ln.Addr().String(), cfg, j.LookBack, j.Skew)
	source.listener, source.legacy = ln, j.Legacy
	source.journal.next = max(1, j.FirstSeq)
	source.journal.floor = source.journal.next
	source.handlers = map[string]http.Handler{PathV1: source.jetstream(shapeV1)}
	if !j.Legacy {
		source.handlers[PathV2] = source.jetstream(shapeV2)
	}
	s.jets = append(s.jets, source)
	return nil
}

// run serves a Jetstream until ctx ends and every subscriber is gone.
func (s *Source) run(ctx context.Context) error {
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if h := s.handlers[r.URL.Path]; h != nil {
				h.ServeHTTP(w, r)
				return
			}
			http.NotFound(w, r)
		}),
		ReadHeaderTimeout: readHeaderTimeout, MaxHeaderBytes: maxHeaderBytes,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(s.listener) }()
	var err error
	select {
	case <-ctx.Done():
		err = errors.Join(server.Close(), <-served)
	case err = <-served:
	}
	s.end()
	if err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", s.name, err)
	}
	return nil
}

// relayOps passes an event of the relay on, an operation at a time.
func (s *Source) relayOps(number int, e sandbox.Event, relaySeq int64) {
	if at := s.addOps(e, s.now(), relaySeq); at != 0 {
		s.note(e.DID, number, at)
	}
}

// addOps appends the items of an event, and gives the time of the last; 0 if all was
// dropped.
func (s *Source) addOps(e sandbox.Event, told time.Time, relaySeq int64) (at int64) {
	add := func(it item, fields map[string]any) {
		it.did = e.DID
		made := s.journal.add(func(seq int64) item {
			it.seq, it.at = seq, s.witness()
			if err := it.encode(fields, s.legacy); err != nil {
				s.fail(err)
			}
			return it
		})
		at = made.at
	}
	upstream := map[string]any{"did": e.DID, "seq": relaySeq, "time": formatTime(told)}
	switch e.Kind {
	case sandbox.EventCommit:
		at = s.lastTime() // a commit without operations is known too
		s.addRows(e, e.Ops, add)
	case sandbox.EventSync:
		if s.drops(Dropped{Event: e}) || s.legacy {
			return 0
		}
		upstream["rev"] = e.Head.Rev
		add(item{kind: e.Kind}, map[string]any{"sync": upstream})
		s.addRows(e, e.All, add)
	case sandbox.EventIdentity:
		if s.drops(Dropped{Event: e}) {
			return 0
		}
		upstream["handle"] = e.Handle
		add(item{kind: e.Kind}, map[string]any{"identity": upstream})
	case sandbox.EventAccount:
		if s.drops(Dropped{Event: e}) {
			return 0
		}
		upstream["active"] = e.Status == sandbox.StatusActive
		if e.Status != sandbox.StatusActive {
			upstream["status"] = e.Status
		}
		add(item{kind: e.Kind, ends: e.Status == sandbox.StatusDeleted}, map[string]any{"account": upstream})
	}
	return at
}

// addRows appends an item for each operation of a commit.
func (s *Source) addRows(e sandbox.Event, ops []sandbox.EventOp, add func(item, map[string]any)) {
	for _, o := range ops {
		if s.drops(Dropped{Event: e, Op: o}) {
			continue
		}
		commit := map[string]any{"rev": e.Head.Rev, "operation": o.Op, "collection": o.Collection, "rkey": o.RKey}
		if o.Entry.CID.Defined() {
			commit["cid"] = o.Entry.CID.String()
			var value struct{ Value json.RawMessage }
			if err := json.Unmarshal(o.Entry.Item, &value); err != nil {
				s.fail(err)
			}
			commit["record"] = value.Value
		}
		add(item{kind: sandbox.EventCommit, collection: o.Collection, rkey: o.RKey, deletes: o.Op == sandbox.OpDelete}, map[string]any{"commit": commit})
	}
}

func (s *Source) lastTime() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return max(1, s.lastWitness)
}

// encode writes an item in both shapes.
func (it *item) encode(fields map[string]any, legacy bool) (err error) {
	kind := string(it.kind)
	if it.kind == sandbox.EventSync {
		it.wire[shapeV1] = nil // not on that wire
	} else {
		v1 := map[string]any{"did": it.did, "time_us": it.at, "kind": kind}
		maps.Copy(v1, fields)
		if !legacy {
			v1["cursor"] = it.seq
		}
		if it.wire[shapeV1], err = json.Marshal(v1); err != nil {
			return fmt.Errorf("encode an item for v1: %w", err)
		}
	}
	payload := map[string]any{
		"$type": typeV2 + "#" + kind, "seq": it.seq, "did": it.did, "time": formatTime(time.UnixMicro(it.at)),
	}
	for name, value := range fields {
		if commit, ok := value.(map[string]any); ok && name == "commit" {
			maps.Copy(payload, commit)
			continue
		}
		payload[name] = value
	}
	if it.wire[shapeV2], err = json.Marshal(map[string]any{"$type": "message", "payload": payload}); err != nil {
		return fmt.Errorf("encode an item for v2: %w", err)
	}
	return nil
}

// Seal seals the segment that is being written: a cursor of time that is newer than it
// starts behind it, however long ago that was.
func (s *Source) Seal() {
	s.journal.mu.Lock()
	end := s.journal.base + len(s.journal.items)
	s.journal.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sealed = end
}

// Compact takes out what a later item has taken away or replaced: what writes a record
// that was written or deleted later, and what an account wrote before it was deleted or
// its repo synced. The markers stay. Everybody is disconnected.
func (s *Source) Compact() {
	type path struct {
		did        syntax.DID
		collection syntax.NSID
		rkey       syntax.RecordKey
	}
	s.journal.rewrite(func(items []item, next int64) ([]item, int64) {
		later, ended := map[path]bool{}, map[syntax.DID]bool{}
		keep := make([]bool, len(items))
		for i := len(items) - 1; i >= 0; i-- {
			it := items[i]
			p := path{it.did, it.collection, it.rkey}
			if it.kind == sandbox.EventCommit {
				keep[i] = it.deletes || !later[p] && !ended[it.did]
				later[p] = true
				continue
			}
			keep[i] = true
			if it.ends || it.kind == sandbox.EventSync {
				ended[it.did] = true
			}
		}
		var left []item
		for i, it := range items {
			if keep[i] {
				left = append(left, it)
			}
		}
		return left, next
	})
	s.Disconnect()
}
