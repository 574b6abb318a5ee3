package stream

import (
	"fmt"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/ipfs/go-cid"
)

// Kind is what an Event is about.
type Kind string

// The kinds of events. The first four are those of the wires.
const (
	KindCommit   Kind = "commit"
	KindSync     Kind = "sync"     // the repo was replaced; what it holds is not told
	KindIdentity Kind = "identity" // something about the account's DID document may have changed
	KindAccount  Kind = "account"  // the account's status, in the word of whoever is upstream
	KindInfo     Kind = "info"     // about the stream itself; no seq
	KindBad      Kind = "bad"      // a frame that was not understood; see Reason
	KindUnknown  Kind = "unknown"  // a frame of a kind that is not known: to be skipped
)

// Action is what an Op does.
type Action string

// The actions of operations.
const (
	ActionCreate Action = "create"
	ActionUpdate Action = "update"
	ActionDelete Action = "delete"
)

// Reason says why a frame is bad.
type Reason string

// The reasons. The list is closed.
const (
	ReasonTooLarge Reason = "too_large" // longer than Config.MaxFrame; it was not looked at
	ReasonFraming  Reason = "framing"   // neither JSON, nor CBOR, as the wire wants it
	ReasonMember   Reason = "member"    // a member is missing, or is not what it ought to be
	ReasonOps      Reason = "ops"       // too many operations, a path twice, or one that cannot be
	ReasonBlocks   Reason = "blocks"    // the CAR is cut, too large, or a block is not what its CID says
)

// Event is one frame of a source. Its byte slices are the reader's memory: good until the
// function that it was handed to returns.
type Event struct {
	Kind Kind
	Seq  int64     // the source's number; 0 where the wire has none
	Time time.Time // when the source witnessed it; of a commit of v2 it is for display
	DID  syntax.DID

	// Of a commit and a sync. A Jetstream's commit has one operation, since each is a
	// frame of its own; one of subscribeRepos has all.
	Rev    syntax.TID
	Ops    []Op
	Since  syntax.TID // of the commit before; subscribeRepos only, empty of the first
	Prev   cid.Cid    // top of the tree of the commit before; subscribeRepos only
	Blocks []byte     // the CAR; subscribeRepos only

	Active bool   // of an account
	Status string // of an account; as sent
	Handle string // of an identity; as sent, may be empty

	Name    string // of an info
	Message string // of an info
	Reason  Reason // of a bad frame, which may have a DID nevertheless
	Err     error  // of a bad frame
}

// Op is one operation of a commit.
type Op struct {
	Action     Action
	Collection syntax.NSID
	RKey       syntax.RecordKey
	CID        cid.Cid // undefined in a delete
	Prev       cid.Cid // of what it replaces or deletes; subscribeRepos only
	JSON       []byte  // the record of a Jetstream; its CID is a claim
	Block      []byte  // the record of subscribeRepos, whose hash is CID's; nil where the CAR has it not
}

// bad is the error of a frame that is not understood.
type bad struct {
	reason Reason
	err    error
}

func (b *bad) Error() string { return string(b.reason) + ": " + b.err.Error() }
func (b *bad) Unwrap() error { return b.err }

func badf(reason Reason, format string, args ...any) error {
	return &bad{reason: reason, err: fmt.Errorf(format, args...)}
}
