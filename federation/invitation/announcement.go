package invitation

import (
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

// ownAddresses returns the addresses of members of this cluster, at most as many as another cluster stores.
func (c *Config) ownAddresses() (out []string) {
	for _, member := range c.Transport.Members() {
		if len(out) < relationship.MaxPeerAddresses {
			out = append(out, member.Address)
		}
	}
	return out
}

// announcement returns what this cluster sends to the other side of an agreement about one of its domains. The
// addresses are those that an operator gave for it, or else the members' own. Web roots that cannot be read are not
// announced, so that the other side keeps what it has.
func (c *Config) announcement(own string, advertised []string) relationship.Announcement {
	urls := c.Transport.Endpoints
	told := relationship.Announcement{
		Identities: c.ownIdentities(),
		Addresses:  advertised,
		Urls:       urls(own, advertised),
		HomeURLs:   urls(c.Home, advertised),
	}
	told.WebRoots, _, _ = c.webRoots()
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
