package stream

import (
	"bytes"
	"fmt"
	"time"

	comatproto "github.com/bluesky-social/indigo/api/atproto"
	lexutil "github.com/bluesky-social/indigo/lex/util"
	"github.com/ipfs/go-cid"
	cbg "github.com/whyrusleeping/cbor-gen"

	"appview/internal/sandbox"
	"appview/internal/sandbox/encode"
)

const methodSubscribeRepos = "com.atproto.sync.subscribeRepos"

// timeLayout is how streams write a time: to the microsecond.
const timeLayout = "2006-01-02T15:04:05.000000Z"

func formatTime(t time.Time) string { return t.UTC().Format(timeLayout) }

// frameBody is the body of an event for any source: all but its seq. It is never changed.
type frameBody struct {
	kind     string
	time     string
	commit   *comatproto.SyncSubscribeRepos_Commit
	sync     *comatproto.SyncSubscribeRepos_Sync
	identity *comatproto.SyncSubscribeRepos_Identity
	account  *comatproto.SyncSubscribeRepos_Account
}

// encodeEvent prepares what hosts say of an event.
func encodeEvent(e sandbox.Event, at time.Time) (*frameBody, error) {
	b := &frameBody{kind: "#" + string(e.Kind), time: formatTime(at)}
	switch e.Kind {
	case sandbox.EventCommit:
		blocks, err := commitBlocks(e)
		if err != nil {
			return nil, fmt.Errorf("encode commit of %s: %w", e.DID, err)
		}
		b.commit = &comatproto.SyncSubscribeRepos_Commit{
			Blobs: []lexutil.LexLink{}, Blocks: rootedCAR(e.Head.CID, blocks), Commit: lexutil.LexLink(e.Head.CID),
			Ops: repoOps(e), Repo: e.DID.String(), Rev: e.Head.Rev.String(), Time: b.time,
		}
		if e.Since != "" {
			since := e.Since.String()
			b.commit.Since, b.commit.PrevData = &since, link(e.PrevData)
		}
	case sandbox.EventSync:
		commit := encode.Block{CID: e.Head.CID, Data: e.Head.Commit()}
		b.sync = &comatproto.SyncSubscribeRepos_Sync{
			Blocks: rootedCAR(e.Head.CID, []encode.Block{commit}), Did: e.DID.String(), Rev: e.Head.Rev.String(), Time: b.time,
		}
	case sandbox.EventIdentity:
		b.identity = &comatproto.SyncSubscribeRepos_Identity{Did: e.DID.String(), Handle: &e.Handle, Time: b.time}
	case sandbox.EventAccount:
		b.account = &comatproto.SyncSubscribeRepos_Account{Did: e.DID.String(), Active: e.Status == sandbox.StatusActive, Time: b.time}
		if !b.account.Active {
			status := string(e.Status)
			b.account.Status = &status
		}
	}
	return b, nil
}

func link(c cid.Cid) *lexutil.LexLink {
	l := lexutil.LexLink(c)
	return &l
}

func repoOps(e sandbox.Event) []*comatproto.SyncSubscribeRepos_RepoOp {
	ops := make([]*comatproto.SyncSubscribeRepos_RepoOp, len(e.Ops))
	for i, o := range e.Ops {
		ops[i] = &comatproto.SyncSubscribeRepos_RepoOp{Action: string(o.Op), Path: pathOf(o)}
		if o.Entry.CID.Defined() {
			ops[i].Cid = link(o.Entry.CID)
		}
		if o.Prev.Defined() {
			ops[i].Prev = link(o.Prev)
		}
	}
	return ops
}

func pathOf(o sandbox.EventOp) string { return o.Collection.String() + "/" + o.RKey.String() }

// frame is the body as one source sends it.
func (b *frameBody) frame(seq int64) ([]byte, error) {
	var body cbg.CBORMarshaler
	switch {
	case b.commit != nil:
		c := *b.commit
		c.Seq, body = seq, &c
	case b.sync != nil:
		c := *b.sync
		c.Seq, body = seq, &c
	case b.identity != nil:
		c := *b.identity
		c.Seq, body = seq, &c
	case b.account != nil:
		c := *b.account
		c.Seq, body = seq, &c
	default:
		return nil, fmt.Errorf("no body of %s", b.kind)
	}
	return frameOf(messageHeader(b.kind), body)
}

// frameOf is a header and a body, one behind the other.
func frameOf(header []byte, body cbg.CBORMarshaler) ([]byte, error) {
	out := bytes.NewBuffer(header)
	if err := body.MarshalCBOR(out); err != nil {
		return nil, fmt.Errorf("encode frame: %w", err)
	}
	return out.Bytes(), nil
}

// messageHeader is {"t":kind,"op":1}.
func messageHeader(kind string) []byte {
	b := append([]byte{0xa2, 0x61, 't', 0x60 | byte(len(kind))}, kind...)
	return append(b, 0x62, 'o', 'p', 0x01)
}

// infoFrame is the #info of a source.
func infoFrame(name, message string) ([]byte, error) {
	return frameOf(messageHeader("#info"), &comatproto.SyncSubscribeRepos_Info{Name: name, Message: &message})
}

// errorFrame is {"op":-1} and {"error":…,"message":…}.
func errorFrame(name, message string) []byte {
	b := appendText([]byte{0xa1, 0x62, 'o', 'p', 0x20, 0xa2}, "error")
	return appendText(appendText(appendText(b, name), "message"), message)
}

// appendText writes a text of less than 256 bytes.
func appendText(b []byte, text string) []byte {
	if len(text) < 24 {
		b = append(b, 0x60|byte(len(text)))
	} else {
		b = append(b, 0x78, byte(len(text)))
	}
	return append(b, text...)
}
