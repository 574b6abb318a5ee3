package cmd

import (
	"time"

	"appview/internal/network"
	"appview/server"
)

// liveHosts tells the server what the network client knows of hosts.
type liveHosts struct{ network *network.Client }

// HostState is how it stands with a host now, for all jobs together.
func (l liveHosts) HostState(url string) (server.HostState, time.Time) {
	host := network.Host(url)
	if state := l.network.HostState(host); state.Down {
		return server.HostDown, state.NextProbe
	}
	if until, parked := l.network.ParkedUntil(host); parked {
		return server.HostParked, until
	}
	return server.HostActive, time.Time{}
}
