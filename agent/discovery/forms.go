package discovery

import (
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"

	"github.com/ententehq/entente/internal/xdsupdate"
)

// Whole serves a state-of-the-world stream. If of is not empty, it is the type of requests that state none.
func Whole(
	h Handler, of xdsupdate.Type,
	down grpc.BidiStreamingServer[discovery.DiscoveryRequest, discovery.DiscoveryResponse],
) error {
	s := &stream{handler: h, types: map[xdsupdate.Type]*subscribed{}}
	s.send = func(t xdsupdate.Type, u *xdsupdate.Update, nonce string) error {
		return down.Send(&discovery.DiscoveryResponse{
			TypeUrl: string(t), VersionInfo: u.Version(), Nonce: nonce, Resources: xdsupdate.Bodies(u.Send),
		})
	}
	return s.run(down.Context(), func() (request, error) {
		m, err := down.Recv()
		return request{
			node: m.GetNode(), of: typeOf(m.GetTypeUrl(), of), nonce: m.GetResponseNonce(),
			rejected: m.GetErrorDetail(), names: m.GetResourceNames(),
		}, err
	})
}

// Delta serves a delta stream. If of is not empty, it is the type of requests that state none.
func Delta(
	h Handler, of xdsupdate.Type,
	down grpc.BidiStreamingServer[discovery.DeltaDiscoveryRequest, discovery.DeltaDiscoveryResponse],
) error {
	s := &stream{handler: h, delta: true, types: map[xdsupdate.Type]*subscribed{}}
	s.send = func(t xdsupdate.Type, u *xdsupdate.Update, nonce string) error {
		m := &discovery.DeltaDiscoveryResponse{
			TypeUrl: string(t), SystemVersionInfo: u.Version(), Nonce: nonce, RemovedResources: u.Removed,
		}
		for _, r := range u.Send {
			m.Resources = append(m.Resources, &discovery.Resource{Name: r.Name, Version: r.Version, Resource: r.Body})
		}
		return down.Send(m)
	}
	return s.run(down.Context(), func() (request, error) {
		m, err := down.Recv()
		return request{
			node: m.GetNode(), of: typeOf(m.GetTypeUrl(), of), nonce: m.GetResponseNonce(),
			rejected: m.GetErrorDetail(), subscribe: m.GetResourceNamesSubscribe(),
			unsubscribe: m.GetResourceNamesUnsubscribe(), initial: m.GetInitialResourceVersions(),
		}, err
	})
}

func typeOf(stated string, otherwise xdsupdate.Type) xdsupdate.Type {
	if stated == "" {
		return otherwise
	}
	return xdsupdate.Type(stated)
}
