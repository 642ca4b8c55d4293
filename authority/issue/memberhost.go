package issue

import (
	"net"
	"net/netip"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/access"
	"github.com/ententehq/entente/authority/svid"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/membership"
)

// memberHost returns the host at which a member is reached, if the ID is that of a member: a DNS name or an IP address
// of the table of members. It is part of the member's SVID for clients that verify the host that they dialled, as
// gRPC's xDS client does.
func memberHost(
	r raftstore.Reader, home spiffeid.TrustDomain, id spiffeid.ID,
) (dnsNames []string, ips []netip.Addr, err error) {
	member, ok := strings.CutPrefix(id.String(), home.IDString()+"/"+svid.ReservedSegment+"/member/")
	if !ok {
		return nil, nil, nil
	}
	row, found, err := membership.Members.Get(r, member)
	if err != nil || !found {
		return nil, nil, err
	}
	host, _, err := net.SplitHostPort(row.Value.GetAddress())
	if err != nil {
		return nil, nil, nil //nolint:nilerr // an address without a host cannot be dialled
	}
	if ip, notIP := netip.ParseAddr(host); notIP == nil {
		return nil, []netip.Addr{ip.WithZone("").Unmap()}, nil
	}
	if access.CheckDNSName(host) == nil {
		return []string{host}, nil, nil
	}
	return nil, nil, nil
}
