// Package reads answers reads of records: pages in the shape of this API and of XRPC, single
// records, and exports. Pages of public reads are kept in a cache until the next commit.
package reads
