package store_test

import (
	"errors"
	"testing"

	"github.com/google/uuid"

	"appview/store"
	"appview/store/jobs"
	"appview/store/storetest"
)

func TestJobIsFoundByItsNumber(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t)
	for range 3 {
		made, err := s.Jobs.CreateJob(t.Context(), uuid.New(), jobs.Request{Collection: note}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := s.Jobs.JobBySeq(t.Context(), made.Seq); err != nil || got.ID != made.ID {
			t.Errorf("job %d is %s, %v, want %s", made.Seq, got.ID, err, made.ID)
		}
	}
	for _, seq := range []uint64{0, 4, 1<<64 - 1} {
		if _, err := s.Jobs.JobBySeq(t.Context(), seq); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("job %d: %v, want ErrNotFound", seq, err)
		}
	}
}
