// Package read reads one repo: from the first probe of its rev to a result that says what
// the repo came to, or why this attempt has failed.
//
// A reading is one machine. How it reads (Method) and how sure it is of what it has
// (Certainty) are two enumerations; both move by one function along one table
// (machine.go), which docs/architecture.md shows as two diagrams. How far each collection
// has come is an Extent. The struct reading holds all of it, and nothing outside this
// package changes it.
//
//	Read ─▶ probe ─▶ resumePosition ─▶ matchIndex ─▶ readPass ─▶ concludePass ─▶ Result
//	                                                    ▲              │
//	                                                    └── restart ───┘ the repo has changed, up to three passes
//
// Read takes a repo that its caller has claimed, commits steps of a long one, and gives
// its result by value. It decides nothing about queues, hosts or the next attempt.
package read
