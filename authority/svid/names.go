package svid

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/internal/dnsname"
)

// MemberID returns the SPIFFE ID of a member.
func MemberID(home spiffeid.TrustDomain, member string) (spiffeid.ID, error) {
	id, err := spiffeid.FromSegments(home, ReservedSegment, "member", member)
	if err != nil {
		return spiffeid.ID{}, fmt.Errorf("member %q cannot be named by a SPIFFE ID: %w", member, err)
	}
	return id, nil
}

// EndpointID returns the SPIFFE ID of a domain's bundle endpoint.
func EndpointID(td spiffeid.TrustDomain) (spiffeid.ID, error) {
	return spiffeid.FromSegments(td, ReservedSegment, "bundle-endpoint")
}

// Reserved reports whether only the server itself issues a SPIFFE ID.
func Reserved(id spiffeid.ID) bool {
	first, _, _ := strings.Cut(strings.TrimPrefix(id.Path(), "/"), "/")
	return first == ReservedSegment
}

// MemberNames returns the names for the certificate of a member: the host of its address, which is a DNS name or an IP
// address, unless the address has none or its host cannot stand in a certificate, and shared, the name that all members
// have in common, unless it is empty.
func MemberNames(address, shared string) (dnsNames []string, ips []netip.Addr) {
	host, _, err := net.SplitHostPort(address)
	if ip, parseErr := netip.ParseAddr(host); err == nil && parseErr == nil {
		ips = []netip.Addr{ip.WithZone("").Unmap()}
	} else if err == nil && dnsname.Check(host) == nil {
		dnsNames = []string{host}
	}
	if shared != "" && !slices.Contains(dnsNames, shared) {
		dnsNames = append(dnsNames, shared)
	}
	return dnsNames, ips
}
