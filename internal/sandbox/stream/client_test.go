package stream_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"testing"
	"time"

	comatproto "github.com/bluesky-social/indigo/api/atproto"
	"github.com/coder/websocket"
	cbg "github.com/whyrusleeping/cbor-gen"

	"appview/internal/sandbox"
	"appview/internal/sandbox/sandboxtest"
	"appview/internal/sandbox/stream"
)

const (
	subscribeRepos = "/xrpc/com.atproto.sync.subscribeRepos"
	patience       = 30 * time.Second
)

// socket is a subscriber.
type socket struct {
	tb   testing.TB
	conn *websocket.Conn
	ctx  context.Context //nolint:containedctx // that of the test
}

// tryDial connects to a path of a source.
func tryDial(tb testing.TB, s *stream.Source, path string, params ...string) (*socket, int, error) {
	tb.Helper()
	q := url.Values{}
	for i := 0; i+1 < len(params); i += 2 {
		q.Add(params[i], params[i+1])
	}
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	tb.Cleanup(cancel)
	conn, resp, err := websocket.Dial(ctx, s.URL()+path+"?"+q.Encode(), nil) //nolint:bodyclose // the library closes it
	if err != nil {
		if resp != nil {
			return nil, resp.StatusCode, err
		}
		return nil, 0, err
	}
	conn.SetReadLimit(16 << 20)
	tb.Cleanup(func() { _ = conn.CloseNow() })
	return &socket{tb, conn, ctx}, resp.StatusCode, nil
}

func dial(tb testing.TB, s *stream.Source, path string, params ...string) *socket {
	tb.Helper()
	c, _, err := tryDial(tb, s, path, params...)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

func (c *socket) read() []byte {
	c.tb.Helper()
	_, b, err := c.conn.Read(c.ctx)
	if err != nil {
		c.tb.Fatal(err)
	}
	return b
}

// frame is a frame of subscribeRepos, read by indigo's decoders.
type frame struct {
	op       int64
	t        string
	commit   comatproto.SyncSubscribeRepos_Commit
	sync     comatproto.SyncSubscribeRepos_Sync
	identity comatproto.SyncSubscribeRepos_Identity
	account  comatproto.SyncSubscribeRepos_Account
	info     comatproto.SyncSubscribeRepos_Info
	rest     []byte
}

// decode reads the header, {"t":…,"op":…} in any order, and the body.
func decode(b []byte) (f frame, err error) {
	r := bytes.NewReader(b)
	in := cbg.NewCborReader(r)
	_, members, err := in.ReadHeader()
	if err != nil {
		return f, err
	}
	for range members {
		name, err := cbg.ReadString(in)
		if err != nil {
			return f, err
		}
		switch name {
		case "t":
			if f.t, err = cbg.ReadString(in); err != nil {
				return f, err
			}
		case "op":
			major, n, err := in.ReadHeader()
			if err != nil {
				return f, err
			}
			if f.op = int64(n); major == cbg.MajNegativeInt {
				f.op = -1 - f.op
			}
		default:
			return f, errors.New("header member " + name)
		}
	}
	switch f.t {
	case "#commit":
		err = f.commit.UnmarshalCBOR(in)
	case "#sync":
		err = f.sync.UnmarshalCBOR(in)
	case "#identity":
		err = f.identity.UnmarshalCBOR(in)
	case "#account":
		err = f.account.UnmarshalCBOR(in)
	case "#info":
		err = f.info.UnmarshalCBOR(in)
	default:
		f.rest = b[len(b)-r.Len():]
		return f, nil
	}
	if err == nil && r.Len() > 0 {
		err = errors.New("bytes behind the body")
	}
	return f, err
}

func (c *socket) frame() frame {
	c.tb.Helper()
	f, err := decode(c.read())
	if err != nil {
		c.tb.Fatal(err)
	}
	return f
}

func (f frame) seq() int64 {
	return f.commit.Seq + f.sync.Seq + f.identity.Seq + f.account.Seq
}

// event is a frame of a Jetstream of either shape.
type event struct {
	DID    string
	TimeUS int64  `json:"time_us"`
	Kind   string // of v1
	Cursor int64  // of v1
	Commit struct {
		Rev, Operation, Collection, RKey, CID string
		Record                                json.RawMessage
	}
	Type                                  string `json:"$type"`
	Seq                                   int64
	Time                                  time.Time
	Rev, Operation, Collection, RKey, CID string
	Record                                json.RawMessage
	Account                               struct {
		Active bool
		Status string
	}
	Identity struct{ Handle string }
	Sync     struct{ Rev string }
	Name     string
}

func (c *socket) v1() (e event) {
	c.tb.Helper()
	if err := json.Unmarshal(c.read(), &e); err != nil {
		c.tb.Fatal(err)
	}
	return e
}

func (c *socket) v2() (e event) {
	c.tb.Helper()
	var envelope struct {
		Type    string `json:"$type"`
		Payload json.RawMessage
	}
	b := c.read()
	if err := json.Unmarshal(b, &envelope); err != nil || envelope.Type != "message" {
		c.tb.Fatalf("%v: %s", err, b)
	}
	if err := json.Unmarshal(envelope.Payload, &e); err != nil {
		c.tb.Fatal(err)
	}
	return e
}

// start makes a small world with streams whose clock the test moves.
func start(t *testing.T, seed int64, cfg stream.Config) (*sandbox.World, *stream.Streams) {
	t.Helper()
	return sandboxtest.StartStreams(t, sandbox.Config{Seed: seed, Hosts: 3, Repos: 9, Collections: []sandbox.Collection{
		{NSID: sandbox.NoteCollection, Share: 1, MinRecords: 5, MaxRecords: 40},
		{NSID: sandbox.StatusCollection, Share: 0.5, MinRecords: 1, MaxRecords: 3},
	}}, cfg)
}

func note(text string) map[string]any {
	return map[string]any{"$type": sandbox.NoteCollection.String(), "text": text}
}
