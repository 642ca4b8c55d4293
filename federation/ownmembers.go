package federation

// ownIdentities are the digests of the identity keys of this cluster's members.
func (m *Manager) ownIdentities() (out [][]byte) {
	for _, member := range m.config.Invitations.Members() {
		out = append(out, member.Identity[:])
	}
	return out
}

// ownAddresses are where members of this cluster are reached, as many as another cluster takes.
func (m *Manager) ownAddresses() (out []string) {
	for _, member := range m.config.Invitations.Members() {
		if len(out) < maxPeerAddresses {
			out = append(out, member.Address)
		}
	}
	return out
}

// tell is what this cluster tells who agrees on one of its domains.
func (m *Manager) tell(own string) membersTold {
	urls := m.config.Invitations.Endpoints
	return membersTold{m.ownIdentities(), m.ownAddresses(), urls(own), urls(m.config.Peers.Home.Name())}
}
