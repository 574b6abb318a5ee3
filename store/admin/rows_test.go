package admin

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/uuid"

	"appview/internal/api"
	"appview/store/kv"
	"appview/store/kv/kvtest"
)

// sampleRows are rows of every table.
func sampleRows(tb testing.TB) []kvtest.Row {
	tb.Helper()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return []kvtest.Row{
		kvtest.Sample(tb, apiKeys, bytes.Repeat([]byte{0xa5}, 32), APIKey{ID: uuid.Max, Name: "k", CreatedAt: at}),
		kvtest.Sample(tb, events, kv.NumberKey(1), Event{At: at, Action: api.ActDeny, Target: "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa", Detail: "spam"}),
	}
}

func TestChangedRowOfATableIsNoticed(t *testing.T) {
	t.Parallel()
	for _, r := range sampleRows(t) {
		kvtest.WantChangesNoticed(t, r)
		kvtest.WantPlainRead(t, r)
	}
}

// FuzzRows reads anything as a row of every table.
func FuzzRows(f *testing.F) {
	for _, seed := range []string{
		"", "\x01", "\x01{}", "\x02{}", "\x01null", "\x01[]",
		"\x01{\"id\":\"00000000-0000-0000-0000-000000000001\",\"permissions\":[\"*\"],\"expires_at\":\"2026-01-02T03:04:05Z\"}",
		"\x01{\"at\":\"2026-01-02T03:04:05Z\",\"actor\":{\"kind\":\"key\"},\"action\":\"backup\",\"outcome\":\"done\"}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, row []byte) {
		kvtest.DecoderOf(apiKeys).WantSameAgain(t, row)
		kvtest.DecoderOf(events).WantSameAgain(t, row)
	})
}
