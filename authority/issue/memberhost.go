package issue

import (
	"net/netip"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/authority/svid"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/membership"
)

// MemberHost returns the host at which a member is reached, if the ID is that of a member: a DNS name or an IP address
// of the table of members, and shared, the name that all members have in common, unless it is empty. They are part of
// the member's SVID for clients that verify the host that they dialled, as gRPC's xDS client does.
func MemberHost(
	r raftstore.Reader, home spiffeid.TrustDomain, id spiffeid.ID, shared string,
) (dnsNames []string, ips []netip.Addr, err error) {
	member, ok := strings.CutPrefix(id.String(), home.IDString()+"/"+svid.ReservedSegment+"/member/")
	if !ok {
		return nil, nil, nil
	}
	row, found, err := membership.Members.Get(r, member)
	if err != nil || !found {
		return nil, nil, err
	}
	dnsNames, ips = svid.MemberNames(row.Value.GetAddress(), shared)
	return dnsNames, ips, nil
}
