package store_test

import (
	"maps"
	"path/filepath"
	"testing"

	"appview/store"
	"appview/store/storetest"
)

// TestPausesAreKept notes what is known of hosts, changes it, and opens the file anew.
func TestPausesAreKept(t *testing.T) {
	t.Parallel()
	cfg := store.Config{Path: filepath.Join(t.TempDir(), "appview.db")}
	s, err := store.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]byte{"https://b.example": []byte(`{"left":2}`)}
	for _, rows := range []map[string][]byte{
		{"https://a.example": []byte(`{"left":1}`), "https://b.example": []byte(`{"left":1}`)},
		{"https://a.example": nil, "https://b.example": []byte(`{"left":2}`), "https://c.example": nil},
	} {
		if err := s.Work.PutPauses(t.Context(), rows); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Work.PutPauses(t.Context(), map[string][]byte{"https://d.example": []byte("{")}); err == nil {
		t.Error("what is no JSON is taken")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := storetest.OpenConfig(t, cfg).Work.Pauses(t.Context())
	if err != nil || !maps.EqualFunc(got, want, func(a, b []byte) bool { return string(a) == string(b) }) {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
}
