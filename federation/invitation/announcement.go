package invitation

import "github.com/ententehq/entente/federation/relationship"

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

// announcement returns what this cluster sends to the other side of an agreement about one of its domains.
func (c *Config) announcement(own string) relationship.Announcement {
	urls := c.Transport.Endpoints
	return relationship.Announcement{
		Identities: c.ownIdentities(),
		Addresses:  c.ownAddresses(),
		Urls:       urls(own),
		HomeURLs:   urls(c.Home),
	}
}
