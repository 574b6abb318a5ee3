// Package stream is what the world of package sandbox says of its changes while they
// happen: com.atproto.sync.subscribeRepos of its hosts and of its relay, and Jetstreams
// over the relay, in their v1 (/subscribe) and v2 (subscribeEvents) shapes.
//
// A [Source] remembers a bounded stretch of what it relayed. Each numbers by itself and
// witnesses by a clock of its own. Sources keep the habits of the real ones: a cursor
// that is inclusive, one at the tip that starts live without a word, one that is too old
// and is refused, announced or clamped, according to kind. Every fault has a switch, and
// each that is carried out is counted ([Source.Faults]).
//
// [Streams] knows every repo at every time and what each source had relayed when
// ([Streams.Versions]): the truth that a reader is held against.
//
// The package is for tests alone. Frames are encoded by indigo's types, not by ours.
package stream
