package server

import (
	"net/http"

	"appview/internal/api"
	"appview/server/answer"
)

// health says that the process answers.
func (s *Server) health(*http.Request) (answer.Reply, error) {
	return answer.OK(api.Health{Status: "ok", Version: s.cfg.Version}), nil
}

// ready says whether the process can do its work.
func (s *Server) ready(*http.Request) (answer.Reply, error) {
	select {
	case <-s.cfg.Store.Failed():
		return answer.Reply{}, notReady("the database has failed: " + s.cfg.Store.Err().Error())
	default:
	}
	if s.cfg.Store.DiskFull() {
		return answer.Reply{}, notReady("the disk is full: jobs wait until there is room")
	}
	if s.cfg.Ready != nil {
		if err := s.cfg.Ready(); err != nil {
			return answer.Reply{}, notReady(err.Error())
		}
	}
	return answer.OK(api.Health{Status: "ready"}), nil
}

func notReady(why string) error {
	return answer.Failure{Status: http.StatusServiceUnavailable, Text: "not ready: " + why}
}
