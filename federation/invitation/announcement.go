package invitation

import "github.com/ententehq/entente/federation/relationship"

// ownIdentities returns the digests of the identity keys of this cluster's members.
func (m *Agreements) ownIdentities() (out [][]byte) {
	for _, member := range m.config.Transport.Members() {
		out = append(out, member.Identity[:])
	}
	return out
}

// ownAddresses returns the addresses of members of this cluster, at most as many as another cluster stores.
func (m *Agreements) ownAddresses() (out []string) {
	for _, member := range m.config.Transport.Members() {
		if len(out) < relationship.MaxPeerAddresses {
			out = append(out, member.Address)
		}
	}
	return out
}

// announcement returns what this cluster sends to the other side of an agreement about one of its domains.
func (m *Agreements) announcement(own string) relationship.Announcement {
	urls := m.config.Transport.Endpoints
	return relationship.Announcement{
		Identities: m.ownIdentities(),
		Addresses:  m.ownAddresses(),
		Urls:       urls(own),
		HomeURLs:   urls(m.config.Home),
	}
}
