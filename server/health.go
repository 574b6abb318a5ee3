package server

import (
	"net/http"

	"appview/internal/api"
)

// health says that the process answers.
func (s *Server) health(*http.Request) (reply, error) {
	return ok(api.Health{Status: "ok", Version: s.cfg.Version}), nil
}

// ready says whether the process can do its work.
func (s *Server) ready(*http.Request) (reply, error) {
	select {
	case <-s.cfg.Store.Failed():
		return reply{}, notReady("the database has failed: " + s.cfg.Store.Err().Error())
	default:
	}
	if s.cfg.Store.DiskFull() {
		return reply{}, notReady("the disk is full: jobs wait until there is room")
	}
	if s.cfg.Ready != nil {
		if err := s.cfg.Ready(); err != nil {
			return reply{}, notReady(err.Error())
		}
	}
	return ok(api.Health{Status: "ready"}), nil
}

func notReady(why string) error {
	return failure{status: http.StatusServiceUnavailable, text: "not ready: " + why}
}
