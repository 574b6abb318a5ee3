// Package service is where the parts of a server are put together, started and stopped. It
// also knows the files of a data directory and its socket, by which the commands of the
// same machine find the server and its key.
package service
