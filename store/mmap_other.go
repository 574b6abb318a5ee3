//go:build unix && !(amd64 || arm64)

package store

const mmapSize = 0
