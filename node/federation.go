package node

import (
	"context"
	"net"
	"time"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/federation"
	"github.com/ententehq/entente/federation/invitation"
	"github.com/ententehq/entente/federation/observation"
	"github.com/ententehq/entente/federation/peer"
	"github.com/ententehq/entente/internal/egress"
	"github.com/ententehq/entente/node/config"
	"github.com/ententehq/entente/node/datadir"
	"github.com/ententehq/entente/node/port"
	"github.com/ententehq/entente/node/preflight"
	"github.com/ententehq/entente/node/recovery"
	"github.com/ententehq/entente/routing/exchange"
)

func buildFederation(m *member) (err error) {
	m.seen = recovery.NewSeen(m.dir.File(datadir.Seen), m.log.Named("federation"))
	route, err := m.cfg.Federation.Route()
	if err != nil {
		return err
	}
	m.federation, err = federation.New(federation.Config{
		Store: m.store, Leader: m.members, Trust: m.trust, Depends: effects{m}.ofDistrust,
		Peers: peer.Transport{
			Home: m.cfg.Cluster.TrustDomain, Dial: m.port.DialPeer, Credentials: port.Credentials(),
			Payload: serviceSync{m},
			Ahead:   func(peer, td string, sequence uint64) { m.seen.Record(peer, td, sequence, time.Now()) },
		},
		Invitations: invitations(m, route),
		Audit:       m.audit, MinRefresh: m.cfg.Federation.MinRefresh, Folder: m.cfg.Federation.BundleDir,
		Route:  route,
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
func invitations(m *member, route egress.Route) invitation.Transport {
	_, endpointPort, _ := net.SplitHostPort(m.cfg.BundleEndpoint.Listen) // the configuration was checked
	c := invitation.Transport{
		Identity:  m.identity,
		Members:   func() []invitation.Member { return invitingMembers(m) },
		Endpoints: endpointURLs,
		Endpoint: func() (*statev1.MemberEndpoint, string, error) {
			roots, doubt, err := preflight.WebRoots(m.cfg.BundleEndpoint, time.Now())
			host, _, _ := net.SplitHostPort(m.cfg.Member.Advertise) // the configuration was checked
			return &statev1.MemberEndpoint{
				Address:    net.JoinHostPort(host, endpointPort),
				Advertised: namedEndpoints(m.cfg.BundleEndpoint, endpointPort), WebRoots: roots,
			}, doubt, err
		},
		EndpointPort: endpointPort,
		Profile:      ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_SPIFFE,
		Dial:         dialInviting(route), Credentials: port.Credentials(),
		Binding: port.BindingFrom, Host: port.HostFrom, NoApproval: m.cfg.Federation.NoApproval,
	}
	if m.cfg.BundleEndpoint.Profile == config.ProfileWeb {
		c.Profile = ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_WEB
	}
	return c
}

// invitingMembers returns all members of the cluster, this one first.
func invitingMembers(m *member) []invitation.Member {
	all := []invitation.Member{{
		ID: m.cfg.Member.ID, Address: m.cfg.Member.Advertise, Identity: m.identity.Digest,
	}}
	fellows, _ := m.directory.Identities() // where they are now
	for _, f := range fellows {
		if identity := [32]byte(f.GetIdentity()); identity != m.identity.Digest {
			all = append(all, invitation.Member{ID: f.GetId(), Address: f.GetAddress(), Identity: identity})
		}
	}
	return all
}

// dialInviting returns a function that calls [port.DialInviting] on a route and also returns the binding of the TLS
// session.
func dialInviting(
	route egress.Route,
) func(ctx context.Context, address string, accept func([32]byte) error) (net.Conn, []byte, error) {
	return func(ctx context.Context, address string, accept func([32]byte) error) (net.Conn, []byte, error) {
		conn, err := port.DialInviting(ctx, route, address, accept)
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
}

// endpointURLs returns the URLs at which endpoints serve the bundle of a hosted domain.
func endpointURLs(td string, endpoints []string) (urls []string) {
	for _, address := range endpoints {
		urls = append(urls, "https://"+address+"/bundles/"+td)
	}
	return urls
}

// namedEndpoints returns where other clusters find the endpoint according to the configuration alone: the advertised
// address, else the names in an ACME certificate.
func namedEndpoints(c config.BundleEndpoint, endpointPort string) (addresses []string) {
	if c.Advertise != "" {
		return []string{c.Advertise}
	}
	if c.ACME != nil {
		for _, host := range c.ACME.Hosts {
			addresses = append(addresses, net.JoinHostPort(host, endpointPort))
		}
	}
	return addresses
}
