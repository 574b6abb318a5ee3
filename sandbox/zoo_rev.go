package sandbox

import (
	"bytes"
	"net/http"
	"time"

	"github.com/bluesky-social/indigo/atproto/syntax"
)

func revZoo() []Behaviour {
	return []Behaviour{NoTID(), FutureRev(), RevGoesBack(), NoStatusMethod(), NoRev(), StatusOfAnother(), Desynchronized()}
}

// telling replaces the rev wherever a host tells it.
func telling(rev func() string) func(*World, Request) Fault {
	return func(w *World, r Request) Fault {
		a := w.find(r.DID)
		if a == nil || r.Part != PartPDS {
			return Fault{}
		}
		return on(sound(func(answer Answer) Answer {
			at := bytes.Index(answer.Body, []byte(`"rev":"`))
			if at < 0 {
				return answer
			}
			at += len(`"rev":"`)
			end := at + bytes.IndexByte(answer.Body[at:], '"')
			answer.Body = append(append(append([]byte(nil), answer.Body[:at]...), rev()...), answer.Body[end:]...)
			return answer
		}), methodGetRepoStatus, methodGetLatestCommit)(w, r)
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
		fault: telling(func() string { return syntax.NewTID(worldStart-1, 1).String() }),
	}
}

// missingMethod is the answer of a host that has not heard of a method.
func missingMethod() Fault {
	return Fault{
		Status: http.StatusNotImplemented, Header: http.Header{"Content-Type": {contentJSON}},
		Body: []byte(`{"error":"MethodNotImplemented","message":"Method Not Implemented"}`),
	}
}

// NoStatusMethod has no getRepoStatus; getLatestCommit is there.
func NoStatusMethod() Behaviour {
	return Behaviour{Name: "no status method", fault: on(missingMethod(), methodGetRepoStatus)}
}

// NoRev has neither of the methods that tell a rev.
func NoRev() Behaviour {
	return Behaviour{
		Name: "no rev", Listed: failed("no_rev"), Whole: failed("no_rev"),
		fault: on(missingMethod(), methodGetRepoStatus, methodGetLatestCommit),
	}
}

// StatusOfAnother tells the status of another repo.
func StatusOfAnother() Behaviour {
	return Behaviour{
		Name: "status of another", Listed: failed("bad_answer"), Whole: failed("bad_answer"),
		fault: func(w *World, r Request) Fault {
			return on(sound(func(a Answer) Answer {
				a.Body = bytes.Replace(a.Body, []byte(r.DID), []byte("did:plc:zzzzzzzzzzzzzzzzzzzzzzzz"), 1)
				return a
			}), methodGetRepoStatus)(w, r)
		},
	}
}

// Desynchronized says that the host has lost touch with the repo.
func Desynchronized() Behaviour {
	return Behaviour{
		Name: "desynchronized", Listed: failed("bad_answer"), Whole: failed("bad_answer"),
		fault: func(w *World, r Request) Fault {
			return on(sound(func(a Answer) Answer {
				a.Body = []byte(`{"did":"` + r.DID + `","active":false,"status":"desynchronized"}`)
				return a
			}), methodGetRepoStatus)(w, r)
		},
	}
}
