// Package kv keeps rows in one bbolt file, and knows nothing of what they mean. It is
// the only package that opens the file, commits to it and closes it.
//
// # Transactions
//
// Backpressure: every write is a Change in one bounded queue (change.go). One goroutine,
// the writer (writer.go), takes the changes in groups and commits each group in one
// transaction; a change is made whole or not at all. A read (Read, View) is a
// transaction of its own, which sees the file as it was at the last commit.
//
// # Failures
//
// A commit that found no room on the disk has changed nothing, and is made again. Any
// other failed commit is final: the file is never written again, and Failed is closed.
// Damage of the file makes bbolt panic or fault: that becomes ErrDamaged (guard.go), and
// ends reads too.
//
// # Rows
//
// A checksum of key and row ends every row of a Table, and every number of the bucket
// meta (checksum.go). Other rows may be sealed in the same way.
//
// # What the packages above bring
//
// A Schema lists buckets, migrations and checks. A Local is what a package keeps in
// memory for one transaction of the writer.
package kv
