// Package record knows what one atproto record is: its address, its value and
// the CID that ties the two together. It is pure: no network, no files.
//
// A record arrives in one of two forms. As JSON, from listRecords, it is turned
// into DAG-CBOR again and hashed; as a block of a CAR it is hashed as it is.
// When the hash is the claimed CID the value is kept as DAG-CBOR and is said to
// be verified: whoever holds it can prove it again. JSON cannot always be turned
// back (a host has rounded a float, or printed a legacy blob or an integer past
// 2^53): such a value is kept as it was received and is not verified. JSON prints
// some floats as integers, so whole numbers are tried as both. Only a value that
// can be turned back and has another CID is wrong, and refused.
//
// What is not in atproto's data model is refused, whatever brought it: an integer
// past 64 bits, half a surrogate pair, a number that is none, a key twice in a map.
package record
