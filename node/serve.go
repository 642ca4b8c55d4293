package node

import (
	"context"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	grpcpeer "google.golang.org/grpc/peer"

	"github.com/ententehq/entente/access"
	"github.com/ententehq/entente/access/audit/auditapi"
	"github.com/ententehq/entente/access/grant"
	"github.com/ententehq/entente/access/record"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/federation"
	"github.com/ententehq/entente/federation/invitation"
	"github.com/ententehq/entente/federation/peer"
	"github.com/ententehq/entente/node/port"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/registration"
	"github.com/ententehq/entente/routing"
	"github.com/ententehq/entente/trust"
)

func buildAccess(m *member) (err error) {
	cfg := access.GuardConfig{
		Store: m.store, Home: m.cfg.Cluster.TrustDomain,
		Hosted: func(r raftstore.Reader, td spiffeid.TrustDomain) (bool, error) { return table.Hosts(r, td.Name()) },
		Direct: func(r raftstore.Reader, td spiffeid.TrustDomain) (bool, error) {
			d, err := trustSources().Decide(r, td.Name())
			return d.Origin == trust.ByHosting || d.Origin == trust.ByRelationship, err
		},
		Agent: func(r raftstore.Reader, id spiffeid.ID, key [32]byte) (bool, error) {
			return registration.Attested(r, m.cfg.Cluster.TrustDomain, id, key)
		},
		Agents: registration.AgentsPrefix(),
		Dependents: func(r raftstore.Reader, revoked grant.Grant) ([]*ententev1.Effect, error) {
			return m.registration.Dependents(r, revoked)
		},
		// A member that is cut off signs by its old state for as long as signing_grace allows.
		LongestSVID: func(r raftstore.Reader, td spiffeid.TrustDomain) (time.Duration, error) {
			row, _, err := table.Domains.Get(r, td.Name())
			s := table.SettingsOf(row.Value)
			return m.cfg.Authority.SigningGrace + max(s.X509SVIDTTL, s.JWTSVIDTTL), err
		},
		Members: func() []string { return memberIDs(m) }, Conn: m.port.Conn,
		Log: m.audit, Logger: m.log.Named("access"), Registerer: m.registry,
	}
	m.authorMay = cfg.AuthorMay
	m.guard, err = access.NewGuard(cfg)
	return err
}

// memberIDs returns the IDs of the members that Raft replicates to.
func memberIDs(m *member) (ids []string) {
	for _, server := range m.store.Servers().List() {
		ids = append(ids, server.MemberID)
	}
	return ids
}

// copier copies the cluster's record of administrative changes into this member's audit log.
func (m *member) copier() *record.Copier {
	return &record.Copier{
		Store: m.store, Log: m.audit, Path: m.dir.File("audit.copied"), Logger: m.log.Named("audit"),
	}
}

// serveOperations serves metrics and health over HTTP.
func serveOperations(m *member) error {
	l, err := listen("operations", "telemetry.listen", m.cfg.Telemetry.Listen)
	if err != nil {
		return err
	}
	m.life.Start("operations", func(ctx context.Context) error { return m.operations.Serve(ctx, l) })
	return nil
}

// serveMembers serves the other members and joiners.
func serveMembers(m *member) {
	options := append(m.traced(memberOptions(port.Credentials(), reception), true),
		grpc.ChainUnaryInterceptor(m.refuseStarting, withMember))
	members := grpc.NewServer(options...)
	ententev1.RegisterStoreServiceServer(members, m.store.Service(port.MemberFrom))
	ententev1.RegisterMemberServiceServer(members, m.members.MemberService())
	ententev1.RegisterSigningServiceServer(members, m.authority.SigningService())
	ententev1.RegisterAuditServiceServer(members, auditapi.New(auditapi.Config{Log: m.audit, Self: m.cfg.Member.ID}))
	m.life.Start("service for members", serveGRPC(members, m.port.Listener(port.Member)))

	options = append(m.traced(joinOptions(port.Credentials(), reception), false),
		grpc.ChainUnaryInterceptor(m.refuseStarting, m.recordJoin, m.recordAttestation))
	joiners := grpc.NewServer(options...)
	ententev1.RegisterJoinServiceServer(joiners, m.members.JoinService())
	ententev1.RegisterInvitationServiceServer(joiners, invitation.NewService(m.federation.Agreements()))
	ententev1.RegisterAttestationServiceServer(joiners, m.registration.AttestationService())
	m.life.Start("service for joiners", serveGRPC(joiners, m.port.Listener(port.Join)))
}

// recordJoin puts a join into the cluster's record of administrative changes: with automatic approval, no administrator
// makes the call that makes the member. A refused join runs no transaction that writes.
func (m *member) recordJoin(
	ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler,
) (any, error) {
	r, ok := request.(*ententev1.JoinRequest)
	if !ok {
		return handler(ctx, request)
	}
	join := record.NewCall(m.store, time.Now)
	join.Describe(record.Description{
		Caller: "joiner at " + r.GetAddress(), Action: "JoinService/Join",
		Object: r.GetId() + " with token " + r.GetTokenId(),
	})
	return handler(join.Context(ctx), request)
}

// withMember puts the calling member into the context of a call. It decides nothing: the port admits only present
// members under their protocol, and each service checks what they may call.
func withMember(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if p, ok := grpcpeer.FromContext(ctx); ok {
		if verified, ok := p.AuthInfo.(port.AuthInfo); ok {
			ctx = access.WithCaller(ctx, verified.AccessCaller())
		}
	}
	return handler(ctx, request)
}

// serveCallers serves clients on the TLS port and the local administrator on the admin socket.
func serveCallers(m *member) error {
	socket, err := access.ListenSocket(m.dir.File(SocketName))
	if err != nil {
		return err
	}
	// TLS has a read buffer of its own, the socket has none.
	local := append(serverOptions(access.SocketCredentials()), grpc.ReadBufferSize(4<<10))
	administrator := newAPI(m, local)
	registerDebug(m, administrator)
	m.life.Start("admin socket", serveGRPC(administrator, socket))
	m.life.Start("API", serveGRPC(newAPI(m, serverOptions(port.Credentials())), m.port.Listener(port.GRPC)))
	return nil
}

// newAPI returns a gRPC server with all services of the API, behind the guard.
func newAPI(m *member, options []grpc.ServerOption) *grpc.Server {
	s := grpc.NewServer(append(append(m.traced(options, false), m.markOptions()...), m.guard.ServerOptions()...)...)
	m.guard.RegisterServices(s)
	ententev1.RegisterClusterServiceServer(s, m.members.ClusterService())
	ententev1.RegisterDomainServiceServer(s, m.authority.DomainService())
	ententev1.RegisterAuthorityServiceServer(s, m.authority.AuthorityService())
	ententev1.RegisterSVIDServiceServer(s, m.authority.SVIDService())
	ententev1.RegisterBundleServiceServer(s, m.bundles)
	ententev1.RegisterFederationServiceServer(s, federation.NewService(m.federation))
	ententev1.RegisterPeerServiceServer(s, peer.NewService(m.federation.Streams()))
	ententev1.RegisterRoutingServiceServer(s, routing.NewServer(m.routing))
	m.registration.RegisterServices(s)
	m.xds.Register(s)
	return s
}
