package config

import (
	"net"
	"strings"
)

// listener is the address in the setting listen of a block.
type listener struct{ block, address string }

// samePort returns the pairs of listeners of which the second would find its port taken by the first.
func samePort(cfg *Config) [][2]listener {
	all := []listener{
		{"member", cfg.Member.Listen}, {"bundle_endpoint", cfg.BundleEndpoint.Listen},
		{"telemetry", cfg.Telemetry.Listen},
	}
	var pairs [][2]listener
	for i, one := range all {
		for _, earlier := range all[:i] {
			if overlap(earlier.address, one.address) {
				pairs = append(pairs, [2]listener{earlier, one})
			}
		}
	}
	return pairs
}

// overlap reports whether two listeners on this machine would take the same port. An unspecified address takes the
// port of every address, of both versions of IP.
func overlap(a, b string) bool {
	hostA, portA, errA := net.SplitHostPort(a)
	hostB, portB, errB := net.SplitHostPort(b)
	if errA != nil || errB != nil || portA != portB {
		return false
	}
	return unspecified(a) || unspecified(b) || loopback(hostA) == loopback(hostB)
}

// loopback returns a host in one form, and localhost as the address that Go listens on.
func loopback(host string) string {
	if strings.EqualFold(host, "localhost") {
		return "127.0.0.1"
	}
	if ip := net.ParseIP(host); ip != nil {
		return ip.String()
	}
	return strings.ToLower(host)
}
