// Package record knows what one atproto record is: its address, its value and
// the CID that ties the two together. It is pure: no network, no files.
//
// A record arrives in one of two forms. As JSON, from listRecords, it is turned
// into DAG-CBOR again and hashed; as a block of a CAR it is hashed as it is.
// When the hash is the claimed CID the value is kept as DAG-CBOR and is said to
// be verified: whoever holds it can prove it again. JSON cannot always be turned
// back (a host has printed a float, a legacy blob, an integer past 2^53): such a
// value is kept as it was received and is not verified. Only a value that can be
// turned back and has another CID is wrong, and refused.
package record
