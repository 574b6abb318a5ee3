// Package index keeps the records of repos in order: the records themselves, the repos
// with the status of their accounts, the change log, the notes of deletions, the key index,
// and the deny list. It knows no job and no queue.
//
// What changes it goes through one function, Apply, which has all guards: a reading of a
// repo, a step of one, events of a stream, the host's word on an account, a deletion that
// somebody asked for. Whoever brings it notes what it came to in the same transaction.
//
// A row belongs here if a read needs it to answer, or Apply to decide.
package index
