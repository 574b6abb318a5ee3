package jobs

import "appview/store/index"

// Verdict is the class that a repo ends in, and why.
type Verdict struct {
	Class  string // ClassDone, ClassUnavailable or ClassFailed
	Reason string
	Detail string // the reason in words, empty if it says everything
}

// Classes of settled repos.
const (
	ClassDone        = "done"
	ClassUnavailable = "unavailable"
	ClassFailed      = "failed"
)

// Reasons of the verdicts that the store comes to itself. Stored: never rename.
const (
	ReasonExact             = "exact"               // the repo as it was at one rev
	ReasonChangedDuringRead = "changed_during_read" // complete, and some of it from a later rev
	ReasonEmpty             = "empty"               // read to its end, and no record was there
	ReasonRejected          = "rejected"            // some records were refused
	ReasonTooLarge          = "too_large"           // the account would take too much of the file
)

// verdict judges the repo by what it was found to hold, unless the settlement says what it
// ends as. guarded says that the index kept something newer than the reading.
func (t Settlement) verdict(tally index.Tally, guarded bool) Verdict {
	switch {
	case t.Verdict.Class != "":
		return t.Verdict
	case tally.Rejected > 0:
		return Verdict{Class: ClassFailed, Reason: ReasonRejected, Detail: t.RejectedDetail}
	case tally.Records == 0:
		return Verdict{Class: ClassDone, Reason: ReasonEmpty}
	case t.Exact && !guarded:
		return Verdict{Class: ClassDone, Reason: ReasonExact}
	default:
		return Verdict{Class: ClassDone, Reason: ReasonChangedDuringRead}
	}
}
