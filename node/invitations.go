package node

import (
	"context"
	"net"
	"slices"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/federation"
	"github.com/ententehq/entente/node/config"
	"github.com/ententehq/entente/node/port"
)

// maxEndpointURLs is how many endpoints a relationship has.
const maxEndpointURLs = 4

// invitations tells federation what it needs to make agreements with clusters that are not known yet.
func (m *member) invitations() federation.InvitationConfig {
	c := federation.InvitationConfig{
		Identity: m.identity, Members: m.invitingMembers, Endpoints: m.endpointURLs,
		Profile: ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_SPIFFE, Dial: dialInviting, Credentials: port.Credentials(),
		Binding: port.BindingFrom, Host: port.HostFrom, NoApproval: m.cfg.Federation.NoApproval,
	}
	if m.cfg.BundleEndpoint.Profile == config.ProfileWeb {
		c.Profile = ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_WEB
	}
	return c
}

// invitingMembers are all members, this one first.
func (m *member) invitingMembers() []federation.InvitingMember {
	all := []federation.InvitingMember{{Address: m.cfg.Member.Advertise, Identity: m.identity.Digest}}
	fellows, _ := m.directory.Fellows()
	for _, f := range fellows {
		if f.Identity != m.identity.Digest {
			all = append(all, federation.InvitingMember{Address: f.Address, Identity: f.Identity})
		}
	}
	return all
}

// dialInviting is [port.DialJoin] with the binding of the session.
func dialInviting(ctx context.Context, address string, accept func([32]byte) error) (net.Conn, []byte, error) {
	conn, err := port.DialJoin(ctx, address, accept)
	if err != nil {
		return nil, nil, err
	}
	binding, err := conn.(*port.Conn).Binding()
	if err != nil {
		_ = conn.Close() // of no use
		return nil, nil, err
	}
	return conn, binding, nil
}

// endpointURLs are where a hosted domain's bundle is served. What is configured counts alone; else it is the names in the
// certificate where ACME gets it, or every member's host, with the
// port of this member's endpoint, since the members of a cluster are configured alike.
func (m *member) endpointURLs(td string) (urls []string) {
	hosts := []string{m.cfg.BundleEndpoint.Advertise}
	if hosts[0] == "" {
		hosts = hosts[:0]
		_, endpointPort, err := net.SplitHostPort(m.cfg.BundleEndpoint.Listen)
		if err != nil {
			return nil // the configuration was checked
		}
		if acme := m.cfg.BundleEndpoint.ACME; acme != nil {
			for _, host := range acme.Hosts { // the names in the certificate
				hosts = append(hosts, net.JoinHostPort(host, endpointPort))
			}
		}
		for _, member := range m.invitingMembers() {
			if m.cfg.BundleEndpoint.ACME != nil {
				break
			}
			if host, _, err := net.SplitHostPort(member.Address); err == nil {
				hosts = append(hosts, net.JoinHostPort(host, endpointPort))
			}
		}
	}
	for _, host := range hosts {
		if url := "https://" + host + "/bundles/" + td; !slices.Contains(urls, url) && len(urls) < maxEndpointURLs {
			urls = append(urls, url)
		}
	}
	return urls
}
