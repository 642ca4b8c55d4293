package agent

import (
	"context"
	"fmt"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ententehq/entente/agent/discovery"
	"github.com/ententehq/entente/agent/sds"
	"github.com/ententehq/entente/agent/workloadapi"
	"github.com/ententehq/entente/agent/xds"
	"github.com/ententehq/entente/client"
	"github.com/ententehq/entente/internal/xdsupdate"
)

// routes serves xDS to workloads, each with the rights of its own default identity.
type routes struct {
	agent      *agent
	identifier *workloadapi.Identifier
	relay      *xds.Relay
}

// handler returns the handler of one stream.
func (r *routes) handler(method string) discovery.Handler {
	return discovery.Handler{
		Open: func(ctx context.Context, node *core.Node) (discovery.Source, error) {
			return r.open(ctx, method, node)
		},
		Rejected: r.identifier.Rejected,
		Sent:     func(xdsupdate.Type) { r.agent.metrics.pushed(method) },
	}
}

func (r *routes) open(ctx context.Context, method string, node *core.Node) (discovery.Source, error) {
	caller, err := r.identifier.Identify(ctx, method)
	if err != nil {
		return nil, err
	}
	state, _, err := r.identifier.Await(ctx, caller, method)
	if err != nil {
		return nil, err
	}
	id := state.Identities[0].SVID.ID
	upstream, err := r.relay.Subscribe(id.String(), node, func() (grpc.ClientConnInterface, func(), error) {
		c, err := r.agent.connect(identity{r.agent, id})
		if err != nil {
			return nil, nil, status.Error(codes.Internal, err.Error())
		}
		return c.Conn(), func() { _ = c.Close() }, nil
	})
	if err != nil {
		return nil, err
	}
	return &routeSource{
		Source: upstream, id: id, secrets: sds.NewSource(r.identifier, caller, method, r.agent.cfg.names()),
	}, nil
}

// routeSource has the routes of an identity, and the secrets of the workload.
type routeSource struct {
	discovery.Source
	id      spiffeid.ID
	secrets *sds.Source
}

// Changed implements [discovery.Source].
func (s *routeSource) Changed() ([2]<-chan struct{}, error) {
	routes, err := s.Source.Changed()
	if err != nil {
		return routes, err
	}
	secrets, err := s.secrets.Changed()
	if err != nil {
		return secrets, err
	}
	if state, ready := s.secrets.State(); ready && state.Identities[0].SVID.ID != s.id {
		return secrets, status.Errorf(codes.Aborted, "the default identity of the workload is no longer %s", s.id)
	}
	return [2]<-chan struct{}{routes[0], secrets[0]}, nil
}

// Subscribe implements [discovery.Source].
func (s *routeSource) Subscribe(t xdsupdate.Type, to discovery.Subscription) error {
	if t == xdsupdate.Secrets {
		return nil // they never come from a member
	}
	return s.Source.Subscribe(t, to)
}

// Wanted implements [discovery.Source].
func (s *routeSource) Wanted(
	t xdsupdate.Type, of discovery.Subscription,
) (map[string]*xdsupdate.Resource, bool, error) {
	if t == xdsupdate.Secrets {
		return s.secrets.Wanted(t, of)
	}
	return s.Source.Wanted(t, of)
}

// identity is the source of the SVID with an ID, which the agent has for a workload.
type identity struct {
	agent *agent
	id    spiffeid.ID
}

// GetX509SVID implements x509svid.Source.
func (i identity) GetX509SVID() (*x509svid.SVID, error) {
	if svid := i.agent.cache.SVID(i.id); svid != nil {
		return svid, nil
	}
	return nil, fmt.Errorf("the agent has no valid SVID of %s", i.id)
}

// connect returns a client with the rights of an SVID.
func (a *agent) connect(svids x509svid.Source) (*client.Client, error) {
	return client.New(context.Background(), client.WithAddresses(a.node.Addresses()...),
		client.WithSource(a.node.ID().TrustDomain(), svids, a.node))
}
