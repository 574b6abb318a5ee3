package zoo

import (
	"bytes"
	"net/http"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"

	"appview/internal/sandbox"
)

func revZoo() []Behaviour {
	return []Behaviour{
		NoTID(), FutureRev(), RevGoesBack(), NoStatusMethod(), NoRev(), StatusOfAnother(), Desynchronized(),
		Takedown(), UnknownStatus(), ErrorInOK(),
	}
}

// telling replaces the rev wherever a host tells it.
func telling(rev func() string) func(*sandbox.World, sandbox.Request) sandbox.Fault {
	return func(w *sandbox.World, r sandbox.Request) sandbox.Fault {
		if !isRepo(w, r) {
			return sandbox.Fault{}
		}
		return on(sound(func(answer sandbox.Answer) sandbox.Answer {
			at := bytes.Index(answer.Body, []byte(`"rev":"`))
			if at < 0 {
				return answer
			}
			at += len(`"rev":"`)
			end := at + bytes.IndexByte(answer.Body[at:], '"')
			answer.Body = append(append(append([]byte(nil), answer.Body[:at]...), rev()...), answer.Body[end:]...)
			return answer
		}), sandbox.MethodGetRepoStatus, sandbox.MethodGetLatestCommit)(w, r)
	}
}

// NoTID gives revs that are no TIDs.
func NoTID() Behaviour {
	return Behaviour{
		Name: "rev is no tid", Listed: failed("bad_rev"), Whole: failed("bad_rev"),
		fault: telling(func() string { return "yesterday" }),
	}
}

// FutureRev gives revs that lie in the future, which would freeze the repo.
func FutureRev() Behaviour {
	return Behaviour{
		Name: "rev in the future", Listed: failed("bad_rev"), Whole: failed("bad_rev"),
		fault: telling(func() string { return syntax.NewTID(time.Now().AddDate(1, 0, 0).UnixMicro(), 1).String() }),
	}
}

// RevGoesBack gives a rev from before the world began. Its outcome is that of a
// reader that has read the repo before.
func RevGoesBack() Behaviour {
	return Behaviour{
		Name: "rev goes back", Listed: failed("rev_went_back"), Whole: failed("rev_went_back"),
		fault: telling(func() string { return syntax.NewTID(sandbox.WorldStart-1, 1).String() }),
	}
}

// missingMethod is the answer of a host that has not heard of a method.
func missingMethod() sandbox.Fault {
	return sandbox.Fault{
		Status: http.StatusNotImplemented, Header: http.Header{"Content-Type": {contentJSON}},
		Body: []byte(`{"error":"MethodNotImplemented","message":"Method Not Implemented"}`),
	}
}

// NoStatusMethod has no getRepoStatus; getLatestCommit is there.
func NoStatusMethod() Behaviour {
	return Behaviour{Name: "no status method", fault: on(missingMethod(), sandbox.MethodGetRepoStatus)}
}

// NoRev has neither of the methods that tell a rev: only the commit of the whole repo does.
func NoRev() Behaviour {
	return Behaviour{
		Name: "no rev", Listed: failed("no_rev"),
		fault: on(missingMethod(), sandbox.MethodGetRepoStatus, sandbox.MethodGetLatestCommit),
	}
}

// plainNotFound is what programs answer that do not say what was not found.
func plainNotFound() sandbox.Fault {
	return sandbox.Fault{Status: http.StatusNotFound, Header: http.Header{"Content-Type": {contentText}}, Body: []byte("404: Not Found")}
}

// SimulatedHost is a host that knows neither of the methods that tell a rev, and says so
// in plain text. It is meant for hosts.
func SimulatedHost() Behaviour {
	return Behaviour{
		Name: "simulated host", Listed: failed("no_rev"),
		fault: on(plainNotFound(), sandbox.MethodGetRepoStatus, sandbox.MethodGetLatestCommit),
	}
}

// PlainRefusals refuses everything in plain text, as not found. It is meant for hosts: of
// one that answers for its other accounts, it says that this one is not there.
func PlainRefusals() Behaviour {
	f := sandbox.Fault{Rewrite: func(a sandbox.Answer) sandbox.Answer {
		if a.Status < http.StatusBadRequest {
			return a
		}
		plain := plainNotFound()
		return sandbox.Answer{Status: plain.Status, Header: plain.Header, Body: plain.Body}
	}}
	return Behaviour{Name: "plain refusals", fault: func(_ *sandbox.World, r sandbox.Request) sandbox.Fault {
		if r.Part != sandbox.PartPDS {
			return sandbox.Fault{}
		}
		return f
	}}
}

// says answers getRepoStatus with a status of its own.
func says(name string, o Outcome, status string) Behaviour {
	return Behaviour{
		Name: name, Listed: o, Whole: o,
		fault: func(w *sandbox.World, r sandbox.Request) sandbox.Fault {
			return on(sound(func(a sandbox.Answer) sandbox.Answer {
				a.Body = []byte(`{"did":"` + r.DID + `",` + status + `}`)
				return a
			}), sandbox.MethodGetRepoStatus)(w, r)
		},
	}
}

// Takedown says of an account that was taken down so in a word of its own.
func Takedown() Behaviour {
	return says("takedown", unavailable("taken_down"), `"active":false,"status":"takedown"`)
}

// UnknownStatus says that the account is not active, in a word that nobody knows.
func UnknownStatus() Behaviour {
	return says("unknown status", unavailable("deactivated"), `"active":false,"status":"hibernating"`)
}

// Desynchronized says that the host has lost touch with the repo.
func Desynchronized() Behaviour {
	return says("desynchronized", failed("bad_answer"), `"active":false,"status":"desynchronized"`)
}

// ErrorInOK refuses everything about an account with a 200.
func ErrorInOK() Behaviour {
	return Behaviour{
		Name: "error in a 200", Listed: unavailable("suspended"), Whole: unavailable("suspended"),
		fault: func(_ *sandbox.World, r sandbox.Request) sandbox.Fault {
			if r.Part != sandbox.PartPDS {
				return sandbox.Fault{}
			}
			return sandbox.Fault{
				Status: http.StatusOK, Header: http.Header{"Content-Type": {contentJSON}},
				Body: []byte(`{"error":"AccountSuspended","message":"The account is suspended"}`),
			}
		},
	}
}

// StatusOfAnother tells the status of another repo.
func StatusOfAnother() Behaviour {
	return Behaviour{
		Name: "status of another", Listed: failed("bad_answer"), Whole: failed("bad_answer"),
		fault: func(w *sandbox.World, r sandbox.Request) sandbox.Fault {
			return on(sound(func(a sandbox.Answer) sandbox.Answer {
				a.Body = bytes.Replace(a.Body, []byte(r.DID), []byte("did:plc:zzzzzzzzzzzzzzzzzzzzzzzz"), 1)
				return a
			}), sandbox.MethodGetRepoStatus)(w, r)
		},
	}
}
