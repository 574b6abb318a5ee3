// Package backfill works through backfill jobs: it finds out which repos there
// are, where each one lives, and what each one holds, and brings the index in
// line with it.
//
//	relay ──discover──▶ found ──resolve──▶ owed at a host ──fetch──▶ settled
//
// The three phases of a job run at the same time, each fed by what the one before
// has committed. A repo goes through these states, all of them rows in the store:
//
//	found ──────▶ owed at a host ──────▶ settled: done, unavailable or failed
//	  │  ▲           │  ▲    │  ▲               │
//	  │  └─ retry ───┘  └────┘  └── reopened ───┘ its end was assumed and must not be
//	  │                   retry, or at another host once
//	  └─────────────────────────────────▶ settled: the DID leads nowhere
//
// What is durable after each commit:
//
//   - a page of a listing: its repos, their number, and the cursor behind it
//   - a look-up: the repo in the queue of its host
//   - a failed attempt: its number, its reason, and when the next may be made
//   - a step of a large repo: its pages, and the position behind them
//   - a settlement: the repo's records, what is deleted of it, its class, the
//     job's counters, and what it has shown of its host's short pages, all in one
//   - a step of reopening: settled repos back in the queue, counted as settled
//
// Nothing says that work is going on, so nothing has to be undone after a crash:
// the next process does what the rows still owe.
//
// Results are committed while the queue that they came from is worked on (scan.go): a
// stage waits for a commit only where it needs its rows. How much is under way is bounded
// by the widths of the stages and by the queue of the store's writer.
//
// How one repo is read, and how sure that is, is package read's. Here is decided which
// repo is read when (task.go, fetch.go), and what becomes of one that was not (settle.go).
//
// A repo is read by one job at a time (claims.go), and its result is in the
// store's queue before the next job may ask for its rev. That, and the rule that
// nothing older than a floor is written, is why two jobs over the same repo end
// with what the repo holds.
//
// A job ends when none of the hosts that it still needs has been healthy for some
// minutes (silence.go): what is owed there is given up, after a look at the DID
// documents of its repos (giveup.go).
//
// A page that is not full is taken for the end of its listing where such pages have
// proved to be that (read/shortpage.go). Repos settled on that ground are marked. When
// one shows that a host's short pages are not the end, those that are marked there
// are reopened, in every job that has not ended (reopen.go).
package backfill
