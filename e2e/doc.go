// Package e2e drives the built program against a network of real parts on
// loopback: two of Bluesky's PDSes, a PLC directory, indigo's relay and its
// collection directory. It speaks only HTTP to all of them and imports nothing
// of the program.
//
// Everything is behind the build tag e2e and runs by `make e2e`, which builds
// the program and installs the parts (see e2e/real). The tests read two
// variables: E2E_APPVIEW_BIN, the program, and E2E_PARTS, the folder of the
// installed parts.
//
// What is compared. The truth is what each PDS itself answers to listRecords,
// for every account that the PDS says is active and whose DID document points
// to it. The index's truth is its export. After every backfill the two have to
// be equal, record by record, in uri, cid and value.
package e2e
