package node

import (
	"context"
	"net"
	"slices"
	"time"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/federation"
	"github.com/ententehq/entente/federation/invitation"
	"github.com/ententehq/entente/federation/observation"
	"github.com/ententehq/entente/federation/peer"
	"github.com/ententehq/entente/node/config"
	"github.com/ententehq/entente/node/datadir"
	"github.com/ententehq/entente/node/port"
	"github.com/ententehq/entente/node/preflight"
	"github.com/ententehq/entente/node/recovery"
	"github.com/ententehq/entente/routing/exchange"
)

func buildFederation(m *member) (err error) {
	m.seen = recovery.NewSeen(m.dir.File(datadir.Seen), m.log.Named("federation"))
	m.federation, err = federation.New(federation.Config{
		Store: m.store, Leader: m.members, Trust: m.trust, Depends: effects{m}.ofDistrust,
		Peers: peer.Transport{
			Home: m.cfg.Cluster.TrustDomain, Dial: m.port.DialPeer, Credentials: port.Credentials(),
			Payload: serviceSync{m},
			Ahead:   func(peer, td string, sequence uint64) { m.seen.Record(peer, td, sequence, time.Now()) },
		},
		Invitations: invitations(m),
		Audit:       m.audit, MinRefresh: m.cfg.Federation.MinRefresh, Folder: m.cfg.Federation.BundleDir,
		Logger: m.log.Named("federation"), Registerer: m.registry,
	})
	if err != nil {
		return err
	}
	m.members.Register(observation.Name, m.federation.Section())
	m.members.Register(peer.Section, m.federation.Streams().Reports())
	return nil
}

// serviceSync adds routing's service sync to the streams of federation. Routing is built after federation and before
// the first stream opens.
type serviceSync struct{ member *member }

// Open implements [peer.Payload].
func (s serviceSync) Open(stream peer.PayloadStream) peer.PayloadSession {
	return s.member.routing.Exchange.NewSync(exchange.Stream(stream))
}

// invitations returns what federation needs for agreements with clusters that it does not know yet.
func invitations(m *member) invitation.Transport {
	c := invitation.Transport{
		Identity: m.identity,
		Members:  func() []invitation.Member { return invitingMembers(m) },
		Endpoints: func(td string, addresses []string) []string {
			if len(addresses) == 0 {
				addresses = memberAddresses(m)
			}
			return endpointURLs(m.cfg.BundleEndpoint, addresses, td)
		},
		Profile: ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_SPIFFE,
		Dial:    dialInviting, Credentials: port.Credentials(),
		Binding: port.BindingFrom, Host: port.HostFrom, NoApproval: m.cfg.Federation.NoApproval,
	}
	if m.cfg.BundleEndpoint.Profile == config.ProfileWeb {
		c.Profile = ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_WEB
		c.WebRoots = func() ([]byte, string, error) { return preflight.WebRoots(m.cfg.BundleEndpoint, time.Now()) }
	}
	return c
}

// invitingMembers returns all members of the cluster, this one first.
func invitingMembers(m *member) []invitation.Member {
	all := []invitation.Member{{Address: m.cfg.Member.Advertise, Identity: m.identity.Digest}}
	fellows, _ := m.directory.Members()
	for _, f := range fellows {
		if f.Identity != m.identity.Digest {
			all = append(all, invitation.Member{Address: f.Address, Identity: f.Identity})
		}
	}
	return all
}

// memberAddresses returns the addresses of all members of the cluster, that of this one first.
func memberAddresses(m *member) (addresses []string) {
	for _, member := range invitingMembers(m) {
		addresses = append(addresses, member.Address)
	}
	return addresses
}

// dialInviting calls [port.DialInviting] and also returns the binding of the TLS session.
func dialInviting(ctx context.Context, address string, accept func([32]byte) error) (net.Conn, []byte, error) {
	conn, err := port.DialInviting(ctx, address, accept)
	if err != nil {
		return nil, nil, err
	}
	binding, err := conn.(*port.Conn).Binding()
	if err != nil {
		_ = conn.Close() // the connection has carried nothing
		return nil, nil, err
	}
	return conn, binding, nil
}

// maxEndpointURLs is the limit of endpoint URLs of a relationship.
const maxEndpointURLs = 4

// endpointURLs returns the URLs at which other clusters find the bundle of a hosted domain. Their hosts are the
// configured advertised address alone if there is one, else the names in an ACME certificate, else the hosts of the
// members' addresses. The port is that of this member's endpoint: the members of a cluster are configured alike.
func endpointURLs(c config.BundleEndpoint, members []string, td string) (urls []string) {
	for _, host := range endpointHosts(c, members) {
		if url := "https://" + host + "/bundles/" + td; !slices.Contains(urls, url) && len(urls) < maxEndpointURLs {
			urls = append(urls, url)
		}
	}
	return urls
}

// endpointHosts returns the addresses, as host:port, for [endpointURLs].
func endpointHosts(c config.BundleEndpoint, members []string) (addresses []string) {
	if c.Advertise != "" {
		return []string{c.Advertise}
	}
	_, endpointPort, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return nil // the configuration was checked
	}
	if c.ACME != nil {
		for _, host := range c.ACME.Hosts {
			addresses = append(addresses, net.JoinHostPort(host, endpointPort))
		}
		return addresses
	}
	for _, address := range members {
		if host, _, err := net.SplitHostPort(address); err == nil {
			addresses = append(addresses, net.JoinHostPort(host, endpointPort))
		}
	}
	return addresses
}
