// Package egress keeps connections that another cluster can cause away from this machine and its network's services.
//
// A peer decides to which addresses its names resolve, and can name addresses itself. [DialContext] refuses a name that
// resolves to an address of this machine, of its link, or of a cloud's metadata service. [Refusal] reports the same of
// a host that a peer names. An address that an operator wrote is dialled as it is written.
package egress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"
)

// ErrAddress is the error for an address that is not dialled.
var ErrAddress = errors.New("address not allowed")

// metadata are the addresses of the metadata services of clouds that are not link-local.
var metadata = []netip.Addr{
	netip.MustParseAddr("fd00:ec2::254"),   // AWS
	netip.MustParseAddr("fd20:ce::254"),    // Google Cloud
	netip.MustParseAddr("100.100.100.200"), // Alibaba Cloud
	netip.MustParseAddr("168.63.129.16"),   // Azure
	netip.MustParseAddr("192.0.0.192"),     // Oracle Cloud
}

// nat64 is the well-known prefix of RFC 6052, below which IPv4 addresses are reachable.
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// Kind returns what makes an address one that a peer may not name: "loopback", "link-local", "metadata service",
// "multicast" or "unspecified". It returns "" for others.
func Kind(a netip.Addr) string {
	a = a.Unmap().WithZone("")
	if nat64.Contains(a) {
		b := a.As16()
		a = netip.AddrFrom4([4]byte(b[12:]))
	}
	for _, m := range metadata {
		if a == m {
			return "metadata service"
		}
	}
	switch {
	case a.IsLoopback():
		return "loopback"
	case a.IsLinkLocalUnicast():
		return "link-local"
	case a.IsMulticast():
		return "multicast"
	case a.IsUnspecified() || a.Is4() && a.As4()[0] == 0:
		return "unspecified"
	}
	return ""
}

// written parses a host as it is written: an IP address, or a name of this machine.
func written(host string) (netip.Addr, bool) {
	name := strings.TrimSuffix(strings.ToLower(host), ".")
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1}), true
	}
	a, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return a, err == nil
}

// Refusal returns an error if a host that a peer names is an address that it may not name. Other names are checked when
// they are dialled.
func Refusal(host string) error {
	if a, ok := written(host); ok {
		if kind := Kind(a); kind != "" {
			return fmt.Errorf("%w: %s is a %s address, which only an operator can give", ErrAddress, host, kind)
		}
	}
	return nil
}

// Loopback reports whether a host is an address of this machine.
func Loopback(host string) bool {
	a, ok := written(host)
	return ok && Kind(a) == "loopback"
}

// DialContext connects to HOST:PORT. If the host is a name, it refuses the addresses that a peer may not name.
func DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return Dial(ctx, &net.Dialer{}, network, address)
}

// Dial is [DialContext] with a dialer, whose Control is replaced.
func Dial(ctx context.Context, d *net.Dialer, network, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	checked := *d
	if _, ok := written(host); !ok {
		checked.Control = func(_, resolved string, _ syscall.RawConn) error { return check(host, resolved) }
	}
	return checked.DialContext(ctx, network, address)
}

func check(host, resolved string) error {
	to, err := netip.ParseAddrPort(resolved)
	if err != nil {
		return fmt.Errorf("%w: %s resolved to %q", ErrAddress, host, resolved)
	}
	if kind := Kind(to.Addr()); kind != "" {
		return fmt.Errorf("%w: %s resolves to %s, a %s address; if that is intended, an operator gives the address "+
			"instead of the name", ErrAddress, host, to.Addr(), kind)
	}
	return nil
}

// Dialer returns a dialer with a timeout and keep-alive, for [Dial].
func Dialer(
	timeout time.Duration, keepAlive net.KeepAliveConfig,
) func(ctx context.Context, network, address string) (net.Conn, error) {
	d := &net.Dialer{Timeout: timeout, KeepAliveConfig: keepAlive}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		return Dial(ctx, d, network, address)
	}
}
