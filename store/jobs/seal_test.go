package jobs

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
	"github.com/google/uuid"

	"appview/internal/api"
	"appview/store/kv"
	"appview/store/kv/kvtest"
)

const sampleDID = syntax.DID("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa")

// sampleRows are rows of every table.
func sampleRows(tb testing.TB) []kvtest.Row {
	tb.Helper()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	host, did := []byte("https://a.test"), []byte(sampleDID)
	return []kvtest.Row{
		kvtest.Sample(tb, jobs, kv.NumberKey(3), Job{ID: uuid.Max, Seq: 3, Status: api.StatusRunning, Stage: api.StagePending, CreatedAt: at, Targets: []syntax.NSID{"com.example.note"}}),
		kvtest.Sample(tb, workRepos, did, WorkRepo{State: RepoSettled, Class: ClassFailed, Reason: "timeout", Host: "https://a.test"}),
		kvtest.Sample(tb, workRepos, did, WorkRepo{}),
		kvtest.Sample(tb, owedRows, owedKey("https://a.test", sampleDID), Owed{Attempts: 2, NotBefore: at}),
		kvtest.Sample(tb, cursors, []byte("com.example.note"), Cursor{Cursor: "123", Pages: 2}),
		kvtest.Sample(tb, hostRows, host, HostWork{Behaviour: Behaviour{Probes: 1, NextProbe: at}}),
		kvtest.Sample(tb, collections, []byte("com.example.note"), trackedRow{AddedAt: at}),
		kvtest.Sample(tb, distrusted, host, distrust{At: at}),
		kvtest.Sample(tb, freshness, freshnessKey(""), Freshness{Last: 3}),
		kvtest.Sample(tb, pauses, host, json.RawMessage(`{"until":"2026-01-02T03:04:05Z"}`)),
		kvtest.Sample(tb, totals, []byte(totalsKey), Totals{}),
		kvtest.Sample(tb, replies, replyKey(uuid.Max, "again"), replyRow{Reply: Reply{Status: 201, Location: "/x", Body: "{}\n"}, Request: []byte{1}, KeptFrom: at}),
	}
}

func TestChangedRowOfATableIsNoticed(t *testing.T) {
	t.Parallel()
	tables := map[string]bool{}
	for _, r := range sampleRows(t) {
		tables[r.Table] = true
		kvtest.WantChangesNoticed(t, r)
	}
	for _, d := range decoders() {
		if !tables[d.Table] {
			t.Errorf("no row of %s: the test tests too little", d.Table)
		}
	}
}

// TestRowOfATableWithoutSealIsRead has rows as they were before there were checksums,
// which say nothing of their key.
func TestRowOfATableWithoutSealIsRead(t *testing.T) {
	t.Parallel()
	for _, r := range sampleRows(t) {
		kvtest.WantPlainRead(t, r)
	}
}
