// Package stream reads live sources: a Jetstream in its v1 and v2 shapes, and
// com.atproto.sync.subscribeRepos of a relay or of one host. A [Reader] holds one
// connection and hands on what comes, in order, as [Event]s. It keeps nothing: where to go
// on, when to dial again and what to believe is its caller's.
//
// A source is a stranger. Frames are bounded, and one that is too large or not understood
// is handed on as [KindBad], with its reason, and ends nothing. What is written on a socket
// is pings alone. Connections go through the dial guard of package transport.
package stream
