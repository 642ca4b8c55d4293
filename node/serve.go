package node

import (
	"context"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	grpcpeer "google.golang.org/grpc/peer"

	"github.com/ententehq/entente/access"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/federation"
	"github.com/ententehq/entente/federation/invitation"
	"github.com/ententehq/entente/federation/peer"
	"github.com/ententehq/entente/node/port"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/routing"
)

func buildAccess(m *member) (err error) {
	m.guard, err = access.NewGuard(access.GuardConfig{
		Store: m.store, Home: m.cfg.Cluster.TrustDomain,
		Hosted: func(r raftstore.Reader, td spiffeid.TrustDomain) (bool, error) { return table.Hosts(r, td.Name()) },
		Log:    m.audit, Logger: m.log.Named("access"), Registerer: m.registry,
	})
	return err
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
	members := grpc.NewServer(append(serverOptions(port.Credentials()), grpc.ChainUnaryInterceptor(withMember))...)
	ententev1.RegisterStoreServiceServer(members, m.store.Service())
	ententev1.RegisterMemberServiceServer(members, m.members.MemberService())
	ententev1.RegisterSigningServiceServer(members, m.authority.SigningService())
	m.life.Start("service for members", serveGRPC(members, m.port.Listener(port.Member)))

	joiners := grpc.NewServer(joinOptions(port.Credentials())...)
	ententev1.RegisterJoinServiceServer(joiners, m.members.JoinService())
	ententev1.RegisterInvitationServiceServer(joiners, invitation.NewService(m.federation.Agreements()))
	m.life.Start("service for joiners", serveGRPC(joiners, m.port.Listener(port.Join)))
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
	socket, err := access.ListenSocket(m.dir.file(SocketName))
	if err != nil {
		return err
	}
	// TLS has a read buffer of its own, the socket has none.
	local := append(serverOptions(access.SocketCredentials()), grpc.ReadBufferSize(4<<10))
	m.life.Start("admin socket", serveGRPC(newAPI(m, local), socket))
	m.life.Start("API", serveGRPC(newAPI(m, serverOptions(port.Credentials())), m.port.Listener(port.GRPC)))
	return nil
}

// newAPI returns a gRPC server with all services of the API, behind the guard.
func newAPI(m *member, options []grpc.ServerOption) *grpc.Server {
	s := grpc.NewServer(append(options, m.guard.ServerOptions()...)...)
	m.guard.RegisterServices(s)
	ententev1.RegisterClusterServiceServer(s, m.members.ClusterService())
	ententev1.RegisterDomainServiceServer(s, m.authority.DomainService())
	ententev1.RegisterAuthorityServiceServer(s, m.authority.AuthorityService())
	ententev1.RegisterSVIDServiceServer(s, m.authority.SVIDService())
	ententev1.RegisterBundleServiceServer(s, m.bundles)
	ententev1.RegisterFederationServiceServer(s, federation.NewService(m.federation))
	ententev1.RegisterPeerServiceServer(s, peer.NewService(m.federation.Streams()))
	ententev1.RegisterRoutingServiceServer(s, routing.NewServer(m.routing))
	m.xds.Register(s)
	return s
}
