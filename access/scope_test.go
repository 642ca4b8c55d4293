package access_test

import (
	"testing"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/ententehq/entente/access"
	"github.com/ententehq/entente/access/grant"
	v1 "github.com/ententehq/entente/api/entente/v1"
)

// recorder is a discovery service that delivers the scope of each stream.
type recorder struct {
	discovery.UnimplementedAggregatedDiscoveryServiceServer
	scopes chan access.Scope
}

func (l *recorder) StreamAggregatedResources(
	s discovery.AggregatedDiscoveryService_StreamAggregatedResourcesServer,
) error {
	if _, err := s.Recv(); err != nil {
		return err
	}
	l.scopes <- access.ScopeFrom(s.Context())
	<-s.Context().Done()
	return s.Context().Err()
}

// TestSight: a caller sees what is foreign, and what is hosted where it has a grant; a stream ends when its grants
// change, so that no caller keeps seeing rows of its old scope.
func TestSight(t *testing.T) {
	h := build(t)
	admin := v1.NewAccessServiceClient(h.dial(t, root))
	l := &recorder{scopes: make(chan access.Scope, 1)}
	open := func(caller access.Caller) (grpc.BidiStreamingClient[discovery.DiscoveryRequest,
		discovery.DiscoveryResponse], access.Scope) {
		server := grpc.NewServer(append(h.guard.ServerOptions(), grpc.Creds(as{insecure.NewCredentials(), caller}))...)
		discovery.RegisterAggregatedDiscoveryServiceServer(server, l)
		stream, err := discovery.NewAggregatedDiscoveryServiceClient(serve(t,
			server)).StreamAggregatedResources(t.Context())
		require.NoError(t, err)
		require.NoError(t, stream.Send(&discovery.DiscoveryRequest{}))
		return stream, <-l.scopes
	}
	td := spiffeid.RequireTrustDomainFromString
	_, everything := open(root)
	for _, name := range []string{"eu.test", "pay.test", "us.test"} {
		require.True(t, everything.Includes(td(name)), name)
	}

	give := func(domain string) {
		_, err := admin.GrantRole(t.Context(), &v1.GrantRoleRequest{Grant: &v1.Grant{Role: grant.Discovery,
			SpiffeId: "spiffe://eu.test/ci", TrustDomain: domain}})
		require.NoError(t, err)
	}
	give("pay.test")
	stream, one := open(ci)
	require.True(t, one.Includes(td("pay.test")))
	require.False(t, one.Includes(td("eu.test")), "hosted, and not granted")
	require.True(t, one.Includes(td("us.test")), "foreign")
	require.NotEqual(t, everything.Key(), one.Key())

	give("eu.test")
	_, err := stream.Recv()
	require.ErrorContains(t, err, "the grants of spiffe://eu.test/ci have changed: open the stream again")
	_, both := open(ci)
	require.True(t, both.Includes(td("eu.test")))
	require.NotEqual(t, one.Key(), both.Key())

	require.False(t, access.Scope{}.Includes(td("us.test")), "the zero value is empty")
	require.False(t, access.ScopeFrom(t.Context()).Includes(td("us.test")))
}
