// Package jobs keeps the backfill jobs: their life, what each still owes, what each repo in
// them came to, and the tracked collections with how fresh the index is there. It stands on
// package index: a settlement is applied to that, and counted here, in one transaction.
//
// Jobs are asked for, moved and listed. Work is what a worker does for them: it finds repos,
// queues them at their hosts, saves the steps of a reading, settles. Collections are the
// tracked ones.
package jobs
