package cmd

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/bluesky-social/indigo/atproto/atdata"
	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/sandbox"
	"appview/internal/sandbox/sandboxtest/interop"
)

// TestInteropRecordsFromHostToReader has a host hold the records of the data model's
// fixtures, whose CIDs they name. A server that lists them, and one that reads the repo in
// one piece, answer readers with the CIDs and the values of the fixtures.
func TestInteropRecordsFromHostToReader(t *testing.T) {
	t.Parallel()
	var fixtures []struct {
		JSON json.RawMessage
		CID  string
	}
	interop.JSON(t, "data/data-model-fixtures.json", &fixtures)
	world := newWorld(t)
	did := world.Repos()[0].DID
	for i, f := range fixtures {
		value, err := atdata.UnmarshalJSON(f.JSON)
		if err != nil {
			t.Fatal(err)
		}
		made, err := world.Create(did, sandbox.NoteCollection, syntax.RecordKey(fmt.Sprintf("fixture-%d", i)), value)
		if err != nil || made.CID != f.CID {
			t.Fatalf("the host holds %s, %v, want %s", made.CID, err, f.CID)
		}
	}
	for name, args := range map[string][]string{"listed": {"--collection", sandbox.NoteCollection.String()}, "whole": nil} {
		dir := filepath.Join(t.TempDir(), name)
		s := serveIn(t, world, dir)
		want(t, exitOK, "completed", nil, append([]string{"backfill", "create", "--did", did.String(), "--watch", "--data-dir", dir}, args...)...)
		for i, f := range fixtures {
			uri := fmt.Sprintf("at://%s/%s/fixture-%d", did, sandbox.NoteCollection, i)
			var got struct {
				URI, CID string
				Value    any
			}
			if err := json.Unmarshal([]byte(want(t, exitOK, uri, nil, "records", "get", uri, "--data-dir", dir)), &got); err != nil {
				t.Fatal(err)
			}
			var value any
			if err := json.Unmarshal(f.JSON, &value); err != nil {
				t.Fatal(err)
			}
			if got.URI != uri || got.CID != f.CID || !reflect.DeepEqual(got.Value, value) {
				t.Errorf("%s: %+v, want %s as %s", name, got, f.JSON, f.CID)
			}
		}
		if code := s.end(); code != exitOK {
			t.Errorf("ended with %d:\n%s", code, s.log)
		}
	}
}
