package service

import (
	"time"

	"appview/internal/api"
	"appview/internal/network"
)

// liveHosts tells the server what the network client knows of hosts.
type liveHosts struct{ network *network.Client }

// HostState is how it stands with a host now, for all jobs together.
func (l liveHosts) HostState(url string) (api.HostState, time.Time) {
	host := network.Host(url)
	if state := l.network.HostState(host); state.Down {
		return api.HostDown, state.NextProbe
	}
	if until, parked := l.network.ParkedUntil(host); parked {
		return api.HostParked, until
	}
	return api.HostActive, time.Time{}
}
