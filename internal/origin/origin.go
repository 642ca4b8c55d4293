// Package origin names where a connection comes from, for limits that no single host can go around.
package origin

import (
	"net"
	"net/netip"
)

// A host can use all addresses of a /64, and a site all of a /48.
const (
	hostBits = 64
	siteBits = 48
)

// Origin is the host that a connection comes from, and for IPv6 the site that the host belongs to. Site is empty
// otherwise.
type Origin struct {
	Host, Site string
}

// Of returns the origin of an address: its IPv4 address, or the /64 and the /48 of its IPv6 address. If the address is
// not of TCP, the host is its text.
func Of(remote net.Addr) Origin {
	tcp, ok := remote.(*net.TCPAddr)
	if !ok {
		return Origin{Host: remote.String()}
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	if ip.Is4() {
		return Origin{Host: ip.String()}
	}
	return Origin{Host: prefix(ip, hostBits), Site: prefix(ip, siteBits)}
}

func prefix(ip netip.Addr, bits int) string {
	p, err := ip.Prefix(bits)
	if err != nil {
		return ip.String() // the zero address
	}
	return p.String()
}

// Counts counts by origin. The owner serializes calls.
type Counts map[string]int

// Add adds n to the counts of the host and the site.
func (c Counts) Add(o Origin, n int) {
	for _, key := range []string{o.Host, o.Site} {
		if key == "" {
			continue
		}
		if c[key] += n; c[key] == 0 {
			delete(c, key)
		}
	}
}
