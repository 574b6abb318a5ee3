// Package store keeps everything appview knows in one bbolt file: the records,
// the repos they came from, the change log, and the backfill jobs with what each
// still owes. Package kv opens the file, commits to it, and knows nothing of what the rows
// mean. Above it, each standing on those before, are packages admin (API keys, audit log),
// index (records, repos, deny list, deletions) and jobs (jobs, their work, tracked
// collections). This package opens the file with what they bring, and hands them out.
//
// # Schema
//
//	meta                   name                  schema version, next rid, next seq, the store's own clock
//	records/<nsid>         rid, rkey             format, rev, indexed-at, seq, source, cid, body, checksum
//	log/<nsid>             seq                   rid, rkey: one entry for each record, moved when it changes
//	deletions/<nsid>       seq                   time, rev, rid, rkey: what was deleted in the last 30 days
//	tombstones/<nsid>      rid, rkey             rev at which an event has deleted it, seq of its deletion, checksum
//	rkeys/<nsid>           rkey, rid             the key index: records in key order across repos; it lags
//	rkeys_at               nsid                  the last change that the key index contains
//	repos                  rid                   DID, PDS, account status; for each collection its floor, count, and whether it is exact; what the account takes of the file
//	dids                   DID                   rid
//	counts                 collection            records and repos that are served
//	jobs                   job sequence          the job: request, targets, status, stage, counters, times
//	totals                 "settled"             what all jobs there ever were have settled
//	job_ids                job id                job sequence
//	unfinished             job sequence          a job that is not final
//	freshness              collection, or *      what jobs over the network came to there: when the last complete one began
//	work/<job>/cursor      listing               relay cursor, saved with its page; a job without this bucket is being forgotten
//	work/<job>/repos       DID                   found, owed at a host, or settled (class, reason, tally)
//	work/<job>/owed        host, DID             the queue: attempts, not-before, reading position
//	work/<job>/hosts       host                  what was found at the host, and how it behaves: short pages, failed probes
//	work/<job>/listed      DID, collection       a bucket of the keys that a repo read in steps has listed so far
//	distrusted             host                  since when something that is assumed of others is known to be wrong of it: that short pages end listings, or that it gives the repos of active accounts only
//	pauses                 host                  until when it is to be left alone, as the network has noted it
//	keys                   sha-256 of the key    an API key: name, permissions, times
//	collections            nsid                  a tracked collection
//	denylist               DID or host           never read, stored or served
//	purges                 sequence              a deletion that was asked for and is not done yet
//	replies                API key, Idempotency-Key  what was replied to a request that made a job, for 24 hours
//	audit                  sequence              what an administrator did: who, what, to what, when
//
// Integers in keys are big-endian, strings are separated by a zero byte, which no
// identifier holds. keys.go of each package makes its keys.
//
// Rows of records and of tombstones, and those that are JSON, are sealed: they end in a checksum of key
// and row (kv.Seal).
//
// # What an account takes
//
// The size of an account is in its repo's row, and moves with the rows that it is the
// size of. A reading that would make an account larger than it may be is not written
// (index/accountbytes.go).
//
// # Append order
//
// A repo gets a number, its rid, when its first record is committed. Records and
// the change log are keyed so that new repos and new changes go to the end of
// their bucket: bbolt then writes full pages once, however large the file is.
//
// # The writer
//
// Every write goes through one goroutine (package kv), which gathers changes and
// commits them in groups. A change is applied whole inside one transaction: a
// repo's records, log entries, counts, work row and the job's counters move
// together, which is why counters are exact whatever crashes.
//
// # What the file says
//
// Rows say what is still owed, never what is being worked on: there is nothing to
// rescue after a crash. A repo's floor in a collection is the rev of the last
// complete read of it; nothing older than a floor is ever written. Where that read
// saw all of it at one moment and nothing was changed since, the row says so: an account
// that comes back at that rev is served again without being read.
package store
