package control

import (
	"bufio"
	"errors"
	"net/http"
	"strconv"
	"sync"

	"appview/internal/api"
	"appview/server/answer"
	"appview/store/admin"
)

// backup sends a copy of the database as it is at one moment. Its length is told
// first, so that a copy that was cut off does not look like a whole one.
func (ctl *Control) backup(w http.ResponseWriter, r *http.Request) error {
	if _, err := answer.Query(r); err != nil {
		return err
	}
	free, err := answer.TakePlace(ctl.out.Bounds.Backups, "backups")
	if err != nil {
		return err
	}
	free = sync.OnceFunc(free)
	defer free()
	begin := func(size int64) error {
		h := w.Header()
		h.Set("Content-Type", "application/octet-stream")
		h.Set("Content-Disposition", `attachment; filename="appview.db"`)
		h.Set("Content-Length", strconv.FormatInt(size, 10))
		w.WriteHeader(http.StatusOK)
		if r.Method == http.MethodHead {
			return answer.ErrHead
		}
		return nil
	}
	out := bufio.NewWriterSize(answer.NewPacer(w, ctl.out.Bounds.Pace), answer.LineBuffer)
	err = ctl.cfg.Store.Backup(r.Context(), begin, out)
	// Before the client has all of it, and asks for another.
	free()
	if err == nil {
		err = out.Flush()
	}
	ctl.noteBackup(r, err)
	return ctl.out.Cut(w, r, err)
}

// noteBackup notes who has been sent what is here, even if not all of it. A disk that
// is too full for that must not keep anybody from saving what is on it.
func (ctl *Control) noteBackup(r *http.Request, err error) {
	e := admin.Event{Action: api.ActBackup, Outcome: api.OutcomeDone}
	switch {
	case errors.Is(err, answer.ErrHead):
		return
	case err != nil:
		e.Outcome, e.Detail = api.OutcomeFailed, err.Error()
	}
	if err := ctl.cfg.Store.Admin.Note(answer.Detached(r), e); err != nil { //nolint:contextcheck // it is noted even if the client has gone
		ctl.cfg.Log.WarnContext(r.Context(), "backup is not noted", "err", err)
	}
}
