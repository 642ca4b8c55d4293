package demo

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
)

// Ports are below the range of outgoing connections. The demo makes many of those, and none may take a port between its
// choice and its use.
const (
	lowestPort  = 15000
	highestPort = 29999
	portTries   = 200
)

// reservation holds free ports until the member that uses them is about to start.
type reservation struct{ listeners []net.Listener }

func (r *reservation) take() (netip.AddrPort, error) {
	for range portTries {
		a := netip.AddrPortFrom(
			netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(lowestPort+rand.IntN(highestPort-lowestPort+1)),
		)
		l, err := net.Listen("tcp", a.String())
		if err == nil {
			r.listeners = append(r.listeners, l)
			return a, nil
		}
	}
	return netip.AddrPort{}, fmt.Errorf(
		"find a free port from %d to %d: %w", lowestPort, highestPort, errors.New("all tried ports are in use"),
	)
}

func (r *reservation) release() {
	for _, l := range r.listeners {
		_ = l.Close()
	}
	r.listeners = nil
}
