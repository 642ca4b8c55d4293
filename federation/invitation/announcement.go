package invitation

import (
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ententehq/entente/federation/relationship"
)

// ownIdentities returns the digests of the identity keys of this cluster's members.
func (c *Config) ownIdentities() (out [][]byte) {
	for _, member := range c.Transport.Members() {
		out = append(out, member.Identity[:])
	}
	return out
}

// ownAddresses returns the addresses of members of this cluster, at most as many as another cluster stores: the same on
// every member.
func (c *Config) ownAddresses() (out []string) {
	for _, member := range c.Transport.Members() {
		out = append(out, member.Address)
	}
	slices.Sort(out)
	return distinct(out, relationship.MaxPeerAddresses)
}

// announcement returns what this cluster sends to the other side of an agreement about one of its domains. It is the
// same on every member. The addresses are those that an operator gave for it, or else the members' own.
func (c *Config) announcement(own string, advertised []string) relationship.Announcement {
	members := c.memberEndpoints()
	at := c.endpointAddresses(members, advertised)
	told := relationship.Announcement{
		Identities: c.ownIdentities(),
		Addresses:  advertised,
		Urls:       c.Transport.Endpoints(own, at),
		HomeURLs:   c.Transport.Endpoints(c.Home, at),
		WebRoots:   c.announcedRoots(members),
	}
	if len(advertised) == 0 {
		told.Addresses = c.ownAddresses()
	}
	return told
}

// parseAdvertised parses the addresses that an operator gives for the other side. An address that the other side would
// refuse is refused here.
func (c *Config) parseAdvertised(raw []string) ([]string, error) {
	addresses, err := relationship.ParseAddresses("advertise", raw)
	if err == nil {
		err = relationship.CheckHosts(addresses, relationship.AtLoopback(c.ownAddresses()))
	}
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	return addresses, nil
}
