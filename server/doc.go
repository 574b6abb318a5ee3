// Package server is the HTTP side of appview. It listens, bounds the connections of clients,
// looks at keys, and hands requests to the packages below it, by audience: control answers
// administrators, reads answers reads of records, web is the page, openapi describes it all.
// They write their answers by answer.
package server
