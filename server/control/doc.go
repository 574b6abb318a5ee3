// Package control answers administrators: jobs, plans, tracked collections, the deny list,
// keys, the audit log, statistics, backups. It answers from the store, and commands jobs
// through the Jobs interface: no answer but a plan waits for the network. How hosts behave
// at the moment it is told through the Hosts interface.
package control
