//go:build unix && (amd64 || arm64)

package kv

const mmapSize = 64 << 30
