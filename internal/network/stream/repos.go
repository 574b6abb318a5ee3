package stream

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	comatproto "github.com/bluesky-social/indigo/api/atproto"
	"github.com/bluesky-social/indigo/atproto/syntax"
	lexutil "github.com/bluesky-social/indigo/lex/util"
	"github.com/ipfs/go-cid"
	cbg "github.com/whyrusleeping/cbor-gen"

	"appview/internal/record"
)

// Bounds of a frame of subscribeRepos. Those of the lexicon are in bytes and entries.
const (
	maxMembers    = 8  // of a header
	maxHeaderText = 64 // in a header
	maxOps        = 200
	maxBlocks     = 2_000_000
	maxSyncBlocks = 10_000
	maxCARBlocks  = 10_000

	sha2x256 = 0x12 // the multihash code of the only hash of records
)

// parseRepos reads a frame of subscribeRepos: a header and a body. What the source ends with
// is *Refused.
func parseRepos(e *Event, frame []byte) error {
	rest := bytes.NewReader(frame)
	in := cbg.NewCborReader(rest)
	op, kind, err := header(in)
	if err != nil {
		return badf(ReasonFraming, "header: %w", err)
	}
	switch {
	case op == -1:
		return refusal(in)
	case op != 1:
		e.Kind = KindUnknown
		return nil
	}
	switch kind {
	case "#commit":
		var m comatproto.SyncSubscribeRepos_Commit
		if err = m.UnmarshalCBOR(in); err == nil {
			err = commitOf(e, &m)
		}
	case "#sync":
		var m comatproto.SyncSubscribeRepos_Sync
		if err = m.UnmarshalCBOR(in); err == nil {
			err = syncOf(e, &m)
		}
	case "#identity":
		var m comatproto.SyncSubscribeRepos_Identity
		if err = m.UnmarshalCBOR(in); err == nil {
			if m.Handle != nil {
				e.Handle = bounded(*m.Handle)
			}
			err = begin(e, KindIdentity, m.Did, m.Seq, m.Time)
		}
	case "#account":
		var m comatproto.SyncSubscribeRepos_Account
		if err = m.UnmarshalCBOR(in); err == nil {
			if e.Active = m.Active; m.Status != nil {
				e.Status = bounded(*m.Status)
			}
			err = begin(e, KindAccount, m.Did, m.Seq, m.Time)
		}
	case "#info":
		var m comatproto.SyncSubscribeRepos_Info
		if err = m.UnmarshalCBOR(in); err == nil {
			if e.Kind, e.Name = KindInfo, bounded(m.Name); m.Message != nil {
				e.Message = bounded(*m.Message)
			}
		}
	default:
		e.Kind = KindUnknown
		return nil
	}
	var unfit *bad
	switch {
	case errors.As(err, &unfit):
		return err
	case err != nil:
		return badf(ReasonFraming, "body of %s: %w", kind, err)
	case rest.Len() > 0:
		return badf(ReasonFraming, "%d bytes behind the body of %s", rest.Len(), kind)
	}
	return nil
}

// header reads {"op":…,"t":…}.
func header(in *cbg.CborReader) (op int64, kind string, err error) {
	major, members, err := in.ReadHeader()
	if err != nil {
		return 0, "", err
	}
	if major != cbg.MajMap || members > maxMembers {
		return 0, "", fmt.Errorf("cbor kind %d with %d members", major, members)
	}
	for range members {
		name, err := cbg.ReadStringWithMax(in, maxHeaderText)
		if err != nil {
			return 0, "", err
		}
		switch name {
		case "t":
			if kind, err = cbg.ReadStringWithMax(in, maxHeaderText); err != nil {
				return 0, "", err
			}
		case "op":
			major, n, err := in.ReadHeader()
			if err != nil {
				return 0, "", err
			}
			if major != cbg.MajUnsignedInt && major != cbg.MajNegativeInt || n > maxMembers {
				return 0, "", fmt.Errorf("op of cbor kind %d, %d", major, n)
			}
			if op = int64(n); major == cbg.MajNegativeInt {
				op = -1 - op
			}
		default:
			return 0, "", fmt.Errorf("member %q", name)
		}
	}
	return op, kind, nil
}

// refusal reads {"error":…,"message":…}.
func refusal(in *cbg.CborReader) error {
	refused := new(Refused)
	_, members, err := in.ReadHeader()
	for range min(members, maxMembers) {
		if err != nil {
			break
		}
		var name, value string
		if name, err = cbg.ReadStringWithMax(in, maxHeaderText); err != nil {
			break
		}
		if value, err = cbg.ReadStringWithMax(in, maxText); err != nil {
			break
		}
		switch name {
		case "error":
			refused.Name = value
		case "message":
			refused.Message = value
		}
	}
	return refused
}

// begin fills in what every event has.
func begin(e *Event, kind Kind, did string, seq int64, at string) error {
	var err error
	if e.DID, err = syntax.ParseDID(did); err != nil {
		return badf(ReasonMember, "did %.40q", did)
	}
	if seq <= 0 || seq >= 1<<53 {
		return badf(ReasonMember, "seq %d", seq)
	}
	e.Kind, e.Seq = kind, seq
	if e.Time, err = time.Parse(time.RFC3339Nano, at); err != nil {
		return badf(ReasonMember, "time %.40q", at)
	}
	return nil
}

func syncOf(e *Event, m *comatproto.SyncSubscribeRepos_Sync) error {
	if err := begin(e, KindSync, m.Did, m.Seq, m.Time); err != nil {
		return err
	}
	var err error
	if e.Rev, err = syntax.ParseTID(m.Rev); err != nil {
		return badf(ReasonMember, "rev %.40q", m.Rev)
	}
	if e.Blocks = m.Blocks; len(m.Blocks) > maxSyncBlocks {
		return badf(ReasonBlocks, "%d bytes", len(m.Blocks))
	}
	return nil
}

func commitOf(e *Event, m *comatproto.SyncSubscribeRepos_Commit) error {
	if err := begin(e, KindCommit, m.Repo, m.Seq, m.Time); err != nil {
		return err
	}
	var err error
	if e.Rev, err = syntax.ParseTID(m.Rev); err != nil {
		return badf(ReasonMember, "rev %.40q", m.Rev)
	}
	if m.Since != nil {
		if e.Since, err = syntax.ParseTID(*m.Since); err != nil {
			return badf(ReasonMember, "since %.40q", *m.Since)
		}
	}
	e.Prev = linked(m.PrevData)
	if e.Blocks = m.Blocks; len(m.Blocks) > maxBlocks {
		return badf(ReasonBlocks, "%d bytes", len(m.Blocks))
	}
	if len(m.Ops) > maxOps {
		return badf(ReasonOps, "%d operations", len(m.Ops))
	}
	seen := make(map[string]bool, len(m.Ops))
	for _, o := range m.Ops {
		if o == nil || seen[o.Path] {
			return badf(ReasonOps, "two operations on one path")
		}
		seen[o.Path] = true
		parsed, err := opOf(o)
		if err != nil {
			return err
		}
		e.Ops = append(e.Ops, parsed)
	}
	return fillBlocks(e)
}

// linked is the CID of a link that may not be there.
func linked(l *lexutil.LexLink) cid.Cid {
	if l == nil {
		return cid.Undef
	}
	return cid.Cid(*l)
}

func opOf(o *comatproto.SyncSubscribeRepos_RepoOp) (Op, error) {
	collection, rkey, ok := bytes.Cut([]byte(o.Path), []byte("/"))
	if !ok || !record.ValidCollection(collection) || !record.ValidRecordKey(rkey) {
		return Op{}, badf(ReasonOps, "path %.80q", o.Path)
	}
	op := Op{
		Action: Action(o.Action), Collection: syntax.NSID(collection), RKey: syntax.RecordKey(rkey),
		CID: linked(o.Cid), Prev: linked(o.Prev),
	}
	switch op.Action {
	case ActionCreate, ActionUpdate:
		if !op.CID.Defined() {
			return Op{}, badf(ReasonOps, "%s of %.80q without a cid", op.Action, o.Path)
		}
	case ActionDelete:
		if op.CID.Defined() {
			return Op{}, badf(ReasonOps, "delete of %.80q with a cid", o.Path)
		}
	default:
		return Op{}, badf(ReasonOps, "action %.20q", o.Action)
	}
	return op, nil
}

// fillBlocks gives the operations of a commit their blocks. Each is hashed; the others of the
// CAR are not looked at.
func fillBlocks(e *Event) error {
	wanted := make(map[string][]int, len(e.Ops))
	for i, o := range e.Ops {
		if p := prefixOf(o.CID); p.Version == 1 && p.Codec == cid.DagCBOR && p.MhType == sha2x256 {
			wanted[o.CID.KeyString()] = append(wanted[o.CID.KeyString()], i)
		}
	}
	blocks := e.Blocks
	for n := 0; len(blocks) > 0; n++ {
		size, width := binary.Uvarint(blocks)
		if width <= 0 || size == 0 || size > uint64(len(blocks)-width) || n > maxCARBlocks {
			return badf(ReasonBlocks, "cut in block %d, or too many", n)
		}
		section := blocks[width : width+int(size)]
		blocks = blocks[width+int(size):]
		if n == 0 {
			continue // the header
		}
		length, id, err := cid.CidFromBytes(section)
		if err != nil {
			return badf(ReasonBlocks, "block %d: %w", n, err)
		}
		at, ok := wanted[id.KeyString()]
		if !ok {
			continue
		}
		hashed, err := id.Prefix().Sum(section[length:])
		if err != nil || !hashed.Equals(id) {
			return badf(ReasonBlocks, "block %s has another hash", id)
		}
		for _, i := range at {
			e.Ops[i].Block = section[length:]
		}
	}
	return nil
}

// prefixOf is the kind of a CID, or of none.
func prefixOf(c cid.Cid) cid.Prefix {
	if !c.Defined() {
		return cid.Prefix{}
	}
	return c.Prefix()
}
