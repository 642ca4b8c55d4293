package plan

import (
	"errors"
	"fmt"
	"net/netip"
)

// maxServiceName leaves room in an xDS resource name and in a DNS name.
const maxServiceName = 128

var (
	// ErrServiceName is returned for what cannot name a service.
	ErrServiceName = errors.New("not a service name")
	// ErrAddress is returned for what cannot be the address of an instance.
	ErrAddress = errors.New("not an address")
)

// CheckServiceName returns an error unless name can be the name of a service: 1 to 128 bytes of lower-case letters,
// digits, '-', '_' and '.', with a letter or digit first and last.
func CheckServiceName(name string) error {
	if name == "" {
		return fmt.Errorf("%w: it is empty", ErrServiceName)
	}
	if len(name) > maxServiceName {
		return fmt.Errorf("%w: %q has %d bytes; %d are allowed", ErrServiceName, Clip(name), len(name), maxServiceName)
	}
	for i := range len(name) {
		c := name[i]
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		case (c == '-' || c == '_' || c == '.') && i > 0 && i < len(name)-1:
		default:
			return fmt.Errorf(
				"%w: %q has %q at byte %d; small letters, digits, '-', '_' and '.' are allowed, a "+
					"letter or digit first and last",
				ErrServiceName,
				Clip(name),
				c,
				i+1,
			)
		}
	}
	return nil
}

// ParseAddress parses IP:port, where IP is a literal ([IP]:port for IPv6), and returns it in its canonical form.
//
// xDS clients use an address without resolving it, so that a host name would fail at each of them instead of here,
// once. Addresses that do not identify one socket for everybody are rejected too: an unspecified, multicast or
// broadcast address, an IPv6 zone, an IPv6 link-local address, which needs a zone, and port 0.
func ParseAddress(text string) (netip.AddrPort, error) {
	a, err := netip.ParseAddrPort(text)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf(
			"%w: %q; write an IP literal and a port, such as 192.0.2.1:8443 or [2001:db8::1]:8443",
			ErrAddress, Clip(text),
		)
	}
	ip := a.Addr()
	why := ""
	switch {
	case ip.Zone() != "":
		why = "an IPv6 zone means something on one host only"
	case a.Port() == 0:
		why = "port 0 cannot be dialled"
	case ip.Unmap().IsUnspecified():
		why = "the unspecified address cannot be dialled; name the address that callers reach"
	case ip.Unmap().IsMulticast(), ip.Unmap() == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		why = "it is not the address of one host"
	case ip.Is6() && !ip.Is4In6() && ip.IsLinkLocalUnicast():
		why = "an IPv6 link-local address needs a zone, which means something on one host only"
	}
	if why != "" {
		return netip.AddrPort{}, fmt.Errorf("%w: %q: %s", ErrAddress, Clip(text), why)
	}
	return netip.AddrPortFrom(ip.Unmap(), a.Port()), nil
}
