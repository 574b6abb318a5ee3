// Package sandbox is a whole Atmosphere on loopback, in one process: a relay, a
// PLC directory and many PDS hosts holding real signed repos. Tests, benchmarks
// and the demo run against it.
//
// # Parts
//
//   - The relay answers listReposByCollection from an append-only directory in
//     the order in which repos were first seen with a collection: deactivated,
//     deleted and emptied repos stay listed, as they do on the real one. It also
//     answers listRepos (active accounts only), getRepoStatus, getLatestCommit,
//     and sends getRepo on to the account's PDS. [World.SetRelay] breaks it.
//   - The PLC directory answers GET /{did} with a DID document in today's form
//     (Multikey, absolute key ids), 404 for an unknown and 410 for a tombstoned
//     DID.
//   - Every PDS host listens on a loopback address of its own, where the system
//     has more than one. It serves listRecords, getRecord, describeRepo, getRepo,
//     getRepoStatus, getLatestCommit and listRepos with the paging, the error
//     names and the error texts of the reference PDS.
//
// # World
//
// [New] makes everything from [Config.Seed]: the same configuration gives the
// same DIDs, keys, record values, CIDs, record keys and revs. Only commit CIDs
// differ from run to run, because a signature holds randomness; within a run a
// rev has exactly one commit.
//
// The world can change while it is read. A commit moves the records and the rev
// of its repo together, and every answer shows one moment of a repo. [World.Truth]
// says what an exact copy of the world would hold. The sandbox encodes records
// itself and imports nothing that it is used to test, so that it can contradict
// it.
//
// Trees and signatures are made when somebody asks for a CAR or a commit CID, so
// that a world of thousands of repos is there in a moment.
//
// [World.Observe] tells of every change as it happens; package stream makes of it what
// hosts, relays and Jetstreams send. It is for tests alone.
//
// # Watching and breaking
//
// Every request lands in a bounded log ([World.Requests]) and in counters
// ([World.Count]). A fault hook ([World.SetFault]) sees every request to every
// part before it is answered and can delay, replace, rewrite or cut the answer,
// or leave the client hanging; every fault that is carried out is counted
// ([World.Faults]), so that a test can show that it happened.
//
// Whoever misbehaves all the time has a [Behaviour] ([World.Assign],
// [World.AssignHost]). Package zoo has them, with what each should come to; it is for
// tests alone.
package sandbox
