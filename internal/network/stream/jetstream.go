package stream

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"

	"appview/internal/record"
)

// typeV2 begins the $type of every payload of v2.
const typeV2 = "network.bsky.jetstream.subscribeEvents#"

// maxText bounds what is kept of a message.
const maxText = 1 << 10

// object reads a JSON object whose members are those of members, each by its function. Others
// are skipped. One that is there twice says two things.
func object(s *record.Scanner, members map[string]func() error) error {
	if s.Peek() != '{' {
		return s.Bad("no object")
	}
	var seen []string
	return s.Object(func(key string) error {
		read := members[key]
		if read == nil {
			return s.Skip()
		}
		if slices.Contains(seen, key) {
			return s.Bad("member " + key + " twice")
		}
		seen = append(seen, key)
		return read()
	})
}

// text has a member read as a text.
func text(s *record.Scanner, into *string) func() error {
	return func() (err error) {
		*into, err = s.Text()
		return err
	}
}

// number has a member read as an integer of 53 bits that is not negative.
func number(s *record.Scanner, into *int64) func() error {
	return func() error {
		b, err := s.Value()
		if err != nil {
			return err
		}
		n, err := strconv.ParseInt(string(b), 10, 64)
		if err != nil || n < 0 || n >= 1<<53 {
			return s.Bad("no integer")
		}
		*into = n
		return nil
	}
}

// fields are the members of both shapes as they are sent.
type fields struct {
	envelope, kind, did, time            string
	seq, timeUS                          int64
	rev, action, collection, rkey, cid   string
	record                               []byte
	hasActive, active                    bool
	status, handle, name, message, error string
	begun                                bool // there was a payload
}

// commit are the members of an operation.
func (f *fields) commit(s *record.Scanner, into map[string]func() error) map[string]func() error {
	into["rev"], into["operation"] = text(s, &f.rev), text(s, &f.action)
	into["collection"], into["rkey"], into["cid"] = text(s, &f.collection), text(s, &f.rkey), text(s, &f.cid)
	into["record"] = func() (err error) {
		f.record, err = s.Value()
		return err
	}
	return into
}

// account are the members of an account's status.
func (f *fields) account(s *record.Scanner) func() error {
	return func() error {
		return object(s, map[string]func() error{
			"status": text(s, &f.status),
			"active": func() error {
				b, err := s.Value()
				f.active, f.hasActive = string(b) == "true", string(b) == "true" || string(b) == "false"
				return err
			},
		})
	}
}

func (f *fields) identity(s *record.Scanner) func() error {
	return func() error { return object(s, map[string]func() error{"handle": text(s, &f.handle)}) }
}

// parseV1 reads a frame of /subscribe.
func parseV1(e *Event, frame []byte) error {
	var f fields
	err := record.ScanObject(frame, func(s *record.Scanner, key string) error {
		members := map[string]func() error{
			"did": text(s, &f.did), "kind": text(s, &f.kind), "time_us": number(s, &f.timeUS), "cursor": number(s, &f.seq),
			"commit":  func() error { return object(s, f.commit(s, map[string]func() error{})) },
			"account": f.account(s), "identity": f.identity(s),
		}
		if read := members[key]; read != nil {
			return read()
		}
		return s.Skip()
	})
	e.DID, _ = syntax.ParseDID(f.did)
	if err != nil {
		return badf(ReasonFraming, "%w", err)
	}
	if f.timeUS == 0 {
		return badf(ReasonMember, "no time_us")
	}
	e.Kind, e.Seq, e.Time = Kind(f.kind), f.seq, time.UnixMicro(f.timeUS)
	return f.finish(e)
}

// parseV2 reads a frame of subscribeEvents. What the source ends with is *Refused.
func parseV2(e *Event, frame []byte) error {
	var f fields
	err := record.ScanObject(frame, func(s *record.Scanner, key string) error {
		switch key {
		case "$type":
			return text(s, &f.envelope)()
		case "error":
			return text(s, &f.error)()
		case "message":
			return text(s, &f.message)()
		case "payload":
			if f.begun {
				return s.Bad("two payloads")
			}
			f.begun = true
			return object(s, f.payload(s))
		}
		return s.Skip()
	})
	e.DID, _ = syntax.ParseDID(f.did)
	if err != nil {
		return badf(ReasonFraming, "%w", err)
	}
	if f.envelope == "error" {
		return &Refused{Name: bounded(f.error), Message: bounded(f.message)}
	}
	kind, ours := strings.CutPrefix(f.kind, typeV2)
	if f.envelope != "message" || !f.begun || !ours {
		e.Kind = KindUnknown
		return nil
	}
	e.Kind, e.Seq = Kind(kind), f.seq
	if e.Kind == KindInfo {
		e.Name, e.Message = bounded(f.name), bounded(f.message)
		return nil
	}
	if e.Time, err = time.Parse(time.RFC3339Nano, f.time); err != nil || f.seq == 0 {
		return badf(ReasonMember, "seq %d at %.40q", f.seq, f.time)
	}
	return f.finish(e)
}

func (f *fields) payload(s *record.Scanner) map[string]func() error {
	return f.commit(s, map[string]func() error{
		"$type": text(s, &f.kind), "seq": number(s, &f.seq), "did": text(s, &f.did), "time": text(s, &f.time),
		"account": f.account(s), "identity": f.identity(s), "name": text(s, &f.name), "message": text(s, &f.message),
		"sync": func() error { return object(s, map[string]func() error{"rev": text(s, &f.rev)}) },
	})
}

// finish turns the members into an event, by its kind.
func (f *fields) finish(e *Event) error {
	switch e.Kind {
	case KindCommit, KindSync, KindIdentity, KindAccount:
	default:
		*e = Event{Kind: KindUnknown, Seq: e.Seq, Time: e.Time, DID: e.DID}
		return nil
	}
	if e.DID == "" {
		return badf(ReasonMember, "did %.40q", f.did)
	}
	var err error
	switch e.Kind {
	case KindCommit:
		return f.op(e)
	case KindSync:
		if e.Rev, err = syntax.ParseTID(f.rev); err != nil {
			return badf(ReasonMember, "rev %.40q", f.rev)
		}
	case KindAccount:
		if !f.hasActive {
			return badf(ReasonMember, "account is neither active nor not")
		}
		e.Active, e.Status = f.active, bounded(f.status)
	case KindIdentity:
		e.Handle = bounded(f.handle)
	default:
	}
	return nil
}

// op is the operation of a commit.
func (f *fields) op(e *Event) error {
	var err error
	if e.Rev, err = syntax.ParseTID(f.rev); err != nil {
		return badf(ReasonMember, "rev %.40q", f.rev)
	}
	o := Op{Action: Action(f.action), Collection: syntax.NSID(f.collection), RKey: syntax.RecordKey(f.rkey)}
	if !record.ValidCollection(f.collection) || !record.ValidRecordKey(f.rkey) {
		return badf(ReasonOps, "path %.80q/%.80q", f.collection, f.rkey)
	}
	switch o.Action {
	case ActionCreate, ActionUpdate:
		if o.CID, err = cid.Decode(f.cid); err != nil {
			return badf(ReasonMember, "cid %.80q", f.cid)
		}
		if len(f.record) == 0 || f.record[0] != '{' {
			return badf(ReasonMember, "no record")
		}
		o.JSON = f.record
	case ActionDelete:
	default:
		return badf(ReasonOps, "operation %.20q", f.action)
	}
	e.Ops = []Op{o}
	return nil
}

// bounded is the beginning of a text that is kept.
func bounded(text string) string { return text[:min(len(text), maxText)] }
