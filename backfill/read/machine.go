package read

import "fmt"

// Method is how a repo is read.
type Method uint8

// The methods.
const (
	Probing   Method = iota // the host is asked for the repo's rev and status; nothing is read
	Listing                 // by pages that are in memory: nothing of the repo is committed
	Stepping                // by pages, in steps: part of the repo is committed, and the listing goes on behind it
	Unchanged               // not at all: the index holds what the repo has at the probed rev
	Whole                   // in one piece, by getRepo, with its signature checked
)

// Certainty is how sure a reading is that what it has is the repo at one rev.
type Certainty uint8

// The certainties. The last three are final.
const (
	Unseen     Certainty = iota // nothing is read yet in this pass
	OneMoment                   // one answer showed all that is read: no change of the repo can lie within it
	Unsettled                   // several answers did: the repo may have changed between them
	Exact                       // all of the repo was seen at one rev
	Changed                     // all of the repo was seen, and it changed in each pass
	Incomplete                  // the repo may hold what was not seen: its listing has no end, or no order that proves absence
)

// state is how a repo is read and how sure that is.
type state struct {
	how  Method
	sure Certainty
}

// event is what moves a state.
type event uint8

const (
	begin   event = iota // a pass over the repo begins
	resume               // the listing goes on where an earlier attempt has committed it
	match                // the index holds every collection at the probed rev
	answer               // an answer of the host has shown the repo at a moment of its own
	fill                 // a page was full: what stands behind it comes with another answer
	commit               // what is read so far is committed as a step
	fetch                // the whole repo is at hand
	confirm              // the rev is the same as before the first page, or signed, and nothing is missing
	change               // the rev is another one in the last pass
	miss                 // the last pass does not show all that the repo holds
)

// moves is the table along which states move. A method or a certainty that is missing in a
// map of a row cannot meet the event; a map that is missing leaves what it is of as it is.
var moves = map[event]struct {
	how  map[Method]Method
	sure map[Certainty]Certainty
}{
	begin: {
		how:  map[Method]Method{Probing: Listing, Listing: Listing, Stepping: Stepping, Unchanged: Listing},
		sure: map[Certainty]Certainty{Unseen: Unseen, OneMoment: Unseen, Unsettled: Unseen},
	},
	resume: {
		how:  map[Method]Method{Listing: Stepping},
		sure: map[Certainty]Certainty{Unseen: Unsettled},
	},
	match: {how: map[Method]Method{Listing: Unchanged}},
	answer: {
		how:  map[Method]Method{Listing: Listing, Stepping: Stepping},
		sure: map[Certainty]Certainty{Unseen: OneMoment, OneMoment: Unsettled, Unsettled: Unsettled},
	},
	fill: {
		how:  map[Method]Method{Listing: Listing, Stepping: Stepping},
		sure: map[Certainty]Certainty{OneMoment: Unsettled, Unsettled: Unsettled},
	},
	commit: {how: map[Method]Method{Listing: Stepping, Stepping: Stepping, Whole: Whole}},
	fetch: {
		how:  map[Method]Method{Probing: Whole, Listing: Whole},
		sure: map[Certainty]Certainty{Unseen: Unseen, OneMoment: Unseen, Unsettled: Unseen},
	},
	confirm: {
		how:  map[Method]Method{Listing: Listing, Stepping: Stepping, Unchanged: Unchanged, Whole: Whole},
		sure: map[Certainty]Certainty{Unseen: Exact, OneMoment: Exact, Unsettled: Exact},
	},
	change: {
		how:  map[Method]Method{Listing: Listing, Stepping: Stepping},
		sure: map[Certainty]Certainty{OneMoment: Changed, Unsettled: Changed},
	},
	miss: {
		how:  map[Method]Method{Listing: Listing, Stepping: Stepping},
		sure: map[Certainty]Certainty{OneMoment: Incomplete, Unsettled: Incomplete},
	},
}

// next is the state after an event, and false if the event cannot meet this state.
func (s state) next(e event) (state, bool) {
	m, to := moves[e], s
	hows, sures := true, true
	if m.how != nil {
		to.how, hows = m.how[s.how]
	}
	if m.sure != nil {
		to.sure, sures = m.sure[s.sure]
	}
	if !hows || !sures {
		return s, false
	}
	return to, true
}

// isFinal reports whether nothing more is to be read.
func (s state) isFinal() bool { return s.sure >= Exact }

// mayTurnWhole reports whether the repo may still be read in one piece: nothing of the
// listing is committed.
func (s state) mayTurnWhole() bool { return s.how != Stepping }

func (s state) String() string { return fmt.Sprintf("%s/%s", s.how, s.sure) }

func (m Method) String() string {
	return [...]string{"probing", "listing", "stepping", "unchanged", "whole"}[m]
}

func (c Certainty) String() string {
	return [...]string{"unseen", "one_moment", "unsettled", "exact", "changed", "incomplete"}[c]
}

func (e event) String() string {
	return [...]string{"begin", "resume", "match", "answer", "fill", "commit", "fetch", "confirm", "change", "miss"}[e]
}

// move moves the state of the reading by an event, along the table. A move that is not
// in it is a mistake of this package: the reading then ends with that error.
func (r *reading) move(e event) {
	to, ok := r.next(e)
	if !ok && r.illegal == nil {
		r.illegal = fmt.Errorf("read %s: the reading is %s, where %q cannot be", r.owed.DID, r.state, e)
	}
	r.state = to
}
