package stream

import (
	"strings"
	"testing"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/coder/websocket"
)

// wellFormed holds an event to what its readers rely on.
func wellFormed(t *testing.T, e *Event) {
	t.Helper()
	if e.Kind == KindBad || e.Kind == KindUnknown || e.Kind == KindInfo {
		if (e.Kind == KindBad) != (e.Reason != "" && e.Err != nil) || len(e.Ops) > 0 {
			t.Errorf("%+v", e)
		}
		return
	}
	if _, err := syntax.ParseDID(e.DID.String()); err != nil || e.Time.IsZero() {
		t.Errorf("%+v: %v", e, err)
	}
	if len(e.Ops) > maxOps || len(e.Blocks) > maxBlocks || e.Kind != KindCommit && len(e.Ops) > 0 {
		t.Errorf("%d operations, %d bytes of %s", len(e.Ops), len(e.Blocks), e.Kind)
	}
	for _, o := range e.Ops {
		_, badCollection := syntax.ParseNSID(o.Collection.String())
		_, badKey := syntax.ParseRecordKey(o.RKey.String())
		if badCollection != nil || badKey != nil || (o.Action == ActionDelete) == o.CID.Defined() {
			t.Errorf("%+v", o)
		}
	}
	if e.Kind == KindCommit || e.Kind == KindSync {
		if _, err := syntax.ParseTID(e.Rev.String()); err != nil {
			t.Errorf("rev %q", e.Rev)
		}
	}
}

func fuzz(f *testing.F, wire Wire, typ websocket.MessageType) {
	f.Helper()
	r := Reader{cfg: Config{Wire: wire}}
	f.Fuzz(func(t *testing.T, frame []byte) {
		if e, err := r.parse(typ, frame); err == nil {
			wellFormed(t, e)
		}
	})
}

func FuzzJetstreamV2(f *testing.F) {
	for _, payload := range []string{
		`"$type":"T#commit","seq":1,"did":"did:plc:x","time":"2026-01-02T03:04:05.123456Z","rev":"3jzfcijpj2z2a","operation":"create","collection":"a.b.c","rkey":"k","record":{},"cid":"bafyreidfayvfuwqa7qlnopdjiqrxzs6blmoeu4rujcjtnci5beludirz2a"`,
		`"$type":"T#account","seq":1,"did":"did:plc:x","time":"2026-01-02T03:04:05Z","account":{"active":false,"status":"deleted"}`,
		`"$type":"T#identity","seq":1,"did":"did:plc:x","time":"2026-01-02T03:04:05Z","identity":{"handle":"a.b"}`,
		`"$type":"T#sync","seq":1,"did":"did:plc:x","time":"2026-01-02T03:04:05Z","sync":{"rev":"3jzfcijpj2z2a"}`,
		`"$type":"T#info","name":"OutdatedCursor"`, `"$type":"T#new"`,
	} {
		f.Add([]byte(`{"$type":"message","payload":{` + strings.Replace(payload, "T#", typeV2, 1) + `}}`))
	}
	f.Add([]byte(`{"$type":"error","error":"ConsumerTooSlow"}`))
	fuzz(f, WireV2, websocket.MessageText)
}

func FuzzJetstreamV1(f *testing.F) {
	f.Add([]byte(`{"did":"did:plc:x","time_us":1,"kind":"commit","commit":{"rev":"3jzfcijpj2z2a","operation":"delete","collection":"a.b.c","rkey":"k"}}`))
	f.Add([]byte(`{"did":"did:plc:x","time_us":1,"kind":"account","account":{"active":true}}`))
	fuzz(f, WireV1, websocket.MessageText)
}

func FuzzSubscribeRepos(f *testing.F) {
	f.Add([]byte("\xa2\x61t\x68#account\x62op\x01\xa4\x63did\x69did:plc:x\x63seq\x01\x64time\x742026-01-02T03:04:05Z\x66active\xf5"))
	f.Add([]byte("\xa1\x62op\x20\xa1\x65error\x61x"))
	fuzz(f, WireRepos, websocket.MessageBinary)
}
