package server

import (
	"net/http"
	"time"

	"appview/server/answer"
)

// Answered is an answer, as it is measured.
type Answered struct {
	Route  string        // the path of the route, with its wildcards; empty if there is none
	Method string        // as the client wrote it
	Status int           // 0 if the connection broke before there was one
	Took   time.Duration // until it began, or broke: some go on for as long as the client listens
}

// observe tells of an answer, if anybody wants to know.
func (s *Server) observe(w *answer.Writer, r *http.Request) {
	if s.cfg.Observe == nil {
		return
	}
	a := Answered{Route: r.Pattern, Method: r.Method}
	a.Status, a.Took = w.Outcome()
	if a.Route == "/" { // what the mux calls everything else
		a.Route = ""
	}
	s.cfg.Observe(a)
}

// Streams is how many streams of events run.
func (s *Server) Streams() int { return s.out.OpenStreams() }

// AnswerBytes is how many bytes the answers under way take at the moment.
func (s *Server) AnswerBytes() int64 { return s.out.Bytes() }

// AnswersCut is how many answers were cut off since others waited for their room.
func (s *Server) AnswersCut() uint64 { return s.out.Cuts() }
