package demo

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
)

// Ports are taken from below the range that the system hands out to outgoing connections, so that none of those, of
// which the demo has many, takes one between its choice and its use.
const (
	lowestPort  = 15000
	highestPort = 29999
	portTries   = 200
)

// reservation holds free ports until those who are to use them are about to start.
type reservation struct{ listeners []net.Listener }

func (r *reservation) take() (netip.AddrPort, error) {
	for range portTries {
		a := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(lowestPort+rand.IntN(highestPort-lowestPort+1)))
		l, err := net.Listen("tcp", a.String())
		if err == nil {
			r.listeners = append(r.listeners, l)
			return a, nil
		}
	}
	return netip.AddrPort{}, fmt.Errorf("find a free port from %d to %d: %w", lowestPort, highestPort, errors.New("all that were tried are taken"))
}

func (r *reservation) release() {
	for _, l := range r.listeners {
		_ = l.Close()
	}
	r.listeners = nil
}
