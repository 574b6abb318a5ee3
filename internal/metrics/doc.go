// Package metrics names everything that is measured of a running server, and
// answers Prometheus. It is the only importer of the Prometheus client.
//
// There are two kinds of series. What the process does (requests, commits,
// answers) is told to it by the hooks of the other packages, and counted from
// zero at each start. What the database holds (jobs, settled repos, changed
// records, sizes) is read from it whenever Prometheus asks: those counters go on
// across restarts, and count nothing twice.
//
// Every label has a closed list of values, or one that the operator has written:
// nothing that comes from the network becomes a label.
package metrics
