package sds

import (
	"context"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	envoy "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secret "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ententehq/entente/agent/discovery"
	"github.com/ententehq/entente/agent/workloadapi"
	"github.com/ententehq/entente/internal/xdsupdate"
)

// Server serves SDS.
type Server struct {
	secret.UnimplementedSecretDiscoveryServiceServer
	identifier *workloadapi.Identifier
	names      Names
	pushed     func(kind string)
}

// New returns the server. pushed is called after each message of a stream, and may be nil.
func New(identifier *workloadapi.Identifier, names Names, pushed func(kind string)) *Server {
	if pushed == nil {
		pushed = func(string) {}
	}
	return &Server{identifier: identifier, names: names, pushed: pushed}
}

func (s *Server) handler(method string) discovery.Handler {
	return discovery.Handler{
		Open: func(ctx context.Context, _ *core.Node) (discovery.Source, error) {
			caller, err := s.identifier.Identify(ctx, method)
			if err != nil {
				return nil, err
			}
			return NewSource(s.identifier, caller, method, s.names), nil
		},
		Rejected: s.identifier.Rejected,
		Sent:     func(xdsupdate.Type) { s.pushed(method) },
	}
}

// StreamSecrets sends the requested secrets, and those that have changed.
func (s *Server) StreamSecrets(stream secret.SecretDiscoveryService_StreamSecretsServer) error {
	return discovery.Whole(s.handler("StreamSecrets"), xdsupdate.Secrets, stream)
}

// DeltaSecrets sends the requested secrets, and those that have changed.
func (s *Server) DeltaSecrets(stream secret.SecretDiscoveryService_DeltaSecretsServer) error {
	return discovery.Delta(s.handler("DeltaSecrets"), xdsupdate.Secrets, stream)
}

// FetchSecrets returns the requested secrets once.
func (s *Server) FetchSecrets(ctx context.Context, m *envoy.DiscoveryRequest) (*envoy.DiscoveryResponse, error) {
	const method = "FetchSecrets"
	if len(m.GetResourceNames()) > discovery.MaxNames {
		return nil, status.Errorf(codes.InvalidArgument, "more than %d names are requested", discovery.MaxNames)
	}
	caller, err := s.identifier.Identify(ctx, method)
	if err != nil {
		return nil, err
	}
	state, _, err := s.identifier.Await(ctx, caller, method)
	if err != nil {
		return nil, err
	}
	resources, err := s.names.Resources(state, m.GetResourceNames(), len(m.GetResourceNames()) == 0)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	u := xdsupdate.Difference(xdsupdate.Secrets, false, resources, nil, xdsupdate.Nacks{})
	if u == nil {
		u = &xdsupdate.Update{}
	}
	return &envoy.DiscoveryResponse{
		VersionInfo: u.Version(), TypeUrl: string(xdsupdate.Secrets), Resources: xdsupdate.Bodies(u.Send),
	}, nil
}
