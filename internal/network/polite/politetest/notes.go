// Package politetest has what tests of pauses share.
package politetest

import (
	"context"
	"maps"
	"sync"
)

// Notes keeps what is remembered of hosts, in place of the file.
type Notes struct {
	mu    sync.Mutex
	rows  map[string][]byte
	fail  error
	saves int
}

// Save keeps rows by host; one that is nil is deleted.
func (n *Notes) Save(_ context.Context, rows map[string][]byte) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.fail != nil {
		return n.fail
	}
	n.saves++
	if n.rows == nil {
		n.rows = map[string][]byte{}
	}
	for host, row := range rows {
		if row == nil {
			delete(n.rows, host)
			continue
		}
		n.rows[host] = row
	}
	return nil
}

// Fail has each later Save fail with err; nil ends that.
func (n *Notes) Fail(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.fail = err
}

// All returns a copy of the rows.
func (n *Notes) All() map[string][]byte {
	n.mu.Lock()
	defer n.mu.Unlock()
	return maps.Clone(n.rows)
}

// Saves is how often Save has kept something.
func (n *Notes) Saves() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.saves
}
