package store_test

import (
	"errors"
	"os"
	"regexp"
	"slices"
	"testing"

	"github.com/google/uuid"

	"appview/internal/api"
	"appview/store"
	"appview/store/jobs"
	"appview/store/storetest"
)

// contract is how statuses may change, as the HTTP contract has it.
var contract = map[api.Status][]api.Status{
	api.StatusRunning:    {api.StatusCompleted, api.StatusFailed, api.StatusCancelling, api.StatusPausing},
	api.StatusPausing:    {api.StatusPaused, api.StatusCancelling},
	api.StatusPaused:     {api.StatusRunning, api.StatusCancelling},
	api.StatusCancelling: {api.StatusCancelled},
	api.StatusCompleted:  nil,
	api.StatusFailed:     nil,
	api.StatusCancelled:  nil,
}

// reach brings a new job into a status.
func reach(t *testing.T, s *store.Store, status api.Status) jobs.Job {
	t.Helper()
	job := newJob(t, s, nil)
	ask := func(to api.Status) {
		t.Helper()
		if _, err := s.Jobs.MoveJob(t.Context(), job.ID, to); err != nil {
			t.Fatal(err)
		}
	}
	finish := func() {
		t.Helper()
		if _, err := s.Jobs.FinishJob(t.Context(), job.Seq, none); err != nil {
			t.Fatal(err)
		}
	}
	end := func(reason string) {
		t.Helper()
		if err := s.Work.EndDiscovery(t.Context(), job.Seq, reason); err != nil {
			t.Fatal(err)
		}
	}
	switch status {
	case api.StatusRunning:
	case api.StatusPausing:
		ask(api.StatusPausing)
	case api.StatusPaused:
		ask(api.StatusPausing)
		finish()
	case api.StatusCancelling:
		ask(api.StatusCancelling)
	case api.StatusCancelled:
		ask(api.StatusCancelling)
		finish()
	case api.StatusCompleted:
		end("")
		finish()
	case api.StatusFailed:
		end("the relay is down")
		finish()
	}
	return at(t, s, job.ID, status)
}

// at wants the job to be in a status.
func at(t *testing.T, s *store.Store, id uuid.UUID, status api.Status) jobs.Job {
	t.Helper()
	job, err := s.Jobs.Job(t.Context(), id)
	if err != nil || job.Status != status {
		t.Fatalf("job is %s, %v; want %s", job.Status, err, status)
	}
	return job
}

func TestStatusesMoveAlongTheContractOnly(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t)
	asked := []api.Status{api.StatusCancelling, api.StatusPausing, api.StatusRunning}
	for from, to := range contract {
		for _, ask := range asked {
			before := reach(t, s, from)
			_, err := s.Jobs.MoveJob(t.Context(), before.ID, ask)
			if allowed := slices.Contains(to, ask); allowed && err != nil {
				t.Errorf("%s → %s: %v", from, ask, err)
			} else if !allowed {
				var is *jobs.MoveError
				if !errors.Is(err, jobs.ErrMove) || !errors.As(err, &is) || is.Status != from {
					t.Errorf("%s → %s: %v, want ErrMove that says what it is", from, ask, err)
				}
				ask = from
			}
			after := at(t, s, before.ID, ask)
			if after.Stage != before.Stage {
				t.Errorf("%s → %s took the stage from %s to %s", from, ask, before.Stage, after.Stage)
			}
		}
		// A worker that ends moves nothing that is not to stop or done.
		job := reach(t, s, from)
		if _, err := s.Jobs.FinishJob(t.Context(), job.Seq, none); err != nil {
			t.Fatal(err)
		}
		want := from
		switch from {
		case api.StatusPausing:
			want = api.StatusPaused
		case api.StatusCancelling:
			want = api.StatusCancelled
		default:
		}
		job = at(t, s, job.ID, want)
		if job.CompletedAt.IsZero() == want.Final() {
			t.Errorf("%s job has completed_at %s", want, job.CompletedAt)
		}
	}
	for _, to := range []api.Status{api.StatusPaused, api.StatusCompleted, api.StatusFailed, api.StatusCancelled, "other"} {
		job := reach(t, s, api.StatusPausing)
		if _, err := s.Jobs.MoveJob(t.Context(), job.ID, to); err == nil || errors.Is(err, jobs.ErrMove) {
			t.Errorf("a user may ask for %s: %v", to, err)
		}
		at(t, s, job.ID, api.StatusPausing)
	}
	if _, err := s.Jobs.MoveJob(t.Context(), uuid.New(), api.StatusPausing); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("pause of no job: %v", err)
	}
}

func TestStatusTableIsTheContractsAndTheDiagramsToo(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	drawn := map[api.Status][]api.Status{}
	for _, m := range regexp.MustCompile(`(?m)^ *(\w+) --> (\w+)`).FindAllSubmatch(page, -1) {
		drawn[api.Status(m[1])] = append(drawn[api.Status(m[1])], api.Status(m[2]))
	}
	for from, want := range contract {
		for what, got := range map[string][]api.Status{"code": store.StatusMoves()[from], "diagram": drawn[from]} {
			got, want := slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))
			if !slices.Equal(got, want) {
				t.Errorf("%s of the %s leads to %v, of the contract to %v", from, what, got, want)
			}
		}
	}
	for _, s := range api.Statuses() {
		if moves, known := store.StatusMoves()[s]; !known || s.Final() != (len(moves) == 0) {
			t.Errorf("%s is final: %v, and goes to %v", s, s.Final(), moves)
		}
	}
	if got := len(store.StatusMoves()); got != len(contract) || got != len(api.Statuses()) {
		t.Errorf("the code has %d statuses, the contract %d", got, len(contract))
	}
}

func TestJobPausedInTheQueueHasNotBegun(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t)
	job, err := s.Jobs.CreateJob(t.Context(), uuid.New(), jobs.Request{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, to := range []api.Status{api.StatusPausing, api.StatusRunning, api.StatusCancelling} {
		if _, err := s.Jobs.MoveJob(t.Context(), job.ID, to); err != nil {
			t.Fatal(err)
		}
		if to == api.StatusRunning {
			continue
		}
		// The worker that is to note the end takes the job up like any other.
		if _, err := s.Jobs.StartJob(t.Context(), job.Seq); err != nil {
			t.Fatal(err)
		}
		got, err := s.Jobs.FinishJob(t.Context(), job.Seq, none)
		if err != nil || !got.StartedAt.IsZero() {
			t.Errorf("%s: started at %s, %v", got.Status, got.StartedAt, err)
		}
		if got.Status == api.StatusPaused && got.Stage != api.StagePending {
			t.Errorf("paused at stage %s", got.Stage)
		}
	}
}
