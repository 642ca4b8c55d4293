package xds

import (
	"testing"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/ententehq/entente/internal/xdsupdate"
	"github.com/ententehq/entente/routing/plan"
)

func TestClientOf(t *testing.T) {
	grpc := []string{xdsupdate.NoOverprovisioning}
	roots := func(value string) *structpb.Struct {
		return &structpb.Struct{Fields: map[string]*structpb.Value{RootsKey: structpb.NewStringValue(value)}}
	}
	for name, c := range map[string]struct {
		node *core.Node
		want Client
	}{
		"Envoy": {&core.Node{
			UserAgentName: "envoy",
			Locality:      &core.Locality{Region: "us", Zone: "a"},
		}, Client{Kind: Envoy, Locality: plan.Locality{Region: "us", Zone: "a"}, Outbound: outboundAddress}},
		"gRPC": {&core.Node{
			UserAgentName:  "gRPC Go",
			ClientFeatures: grpc,
		}, Client{Kind: GRPC, Locality: plan.Locality{Region: "eu"}}},
		"gRPC for Node.js": {&core.Node{
			UserAgentName:  "gRPC Node Pure JS",
			ClientFeatures: grpc,
		}, Client{Kind: GRPCSplit, Locality: plan.Locality{Region: "eu"}}},
		"a client that declares it": {&core.Node{
			UserAgentName:  "gRPC Go",
			ClientFeatures: grpc,
			Metadata:       roots(RootsFiles),
		}, Client{Kind: GRPCSplit, Locality: plan.Locality{Region: "eu"}}},
		"a client that declares another": {
			&core.Node{UserAgentName: "gRPC Node Pure JS", ClientFeatures: grpc, Metadata: roots(RootsMap)},
			Client{Kind: GRPC, Locality: plan.Locality{Region: "eu"}},
		},
		"a sub-zone": {&core.Node{
			Locality: &core.Locality{Region: "us", Zone: "a", SubZone: "1"},
		}, Client{
			Kind: Envoy, Locality: plan.Locality{Region: "us", Zone: "a", SubZone: "1"}, Outbound: outboundAddress,
		}},
		"Envoy behind an agent": {&core.Node{Metadata: &structpb.Struct{Fields: map[string]*structpb.Value{
			xdsupdate.CertificateKey: structpb.NewStringValue(xdsupdate.CertificateOverADS),
		}}}, Client{
			Kind: Envoy, Locality: plan.Locality{Region: "eu"}, CertificateOverADS: true, Outbound: outboundAddress,
		}},
		"a zone of this region": {
			&core.Node{Locality: &core.Locality{Zone: "a"}},
			Client{Kind: Envoy, Locality: plan.Locality{Region: "eu", Zone: "a"}, Outbound: outboundAddress},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ClientOf(c.node, "eu")
			require.NoError(t, err)
			require.Equal(t, c.want, got)
		})
	}
	_, err := ClientOf(&core.Node{Locality: &core.Locality{Region: "u/s"}}, "eu")
	require.ErrorContains(t, err, "the locality of the node")
	outbound := func(address string) *core.Node {
		return &core.Node{Metadata: &structpb.Struct{Fields: map[string]*structpb.Value{
			xdsupdate.OutboundKey: structpb.NewStringValue(address),
		}}}
	}
	got, err := ClientOf(outbound("127.0.0.1:9000"), "eu")
	require.NoError(t, err)
	require.Equal(t, "127.0.0.1:9000", got.Outbound.String())
	for _, bad := range []string{"192.0.2.1:9000", "localhost:9000"} {
		_, err = ClientOf(outbound(bad), "eu")
		require.ErrorContains(t, err, "entente.outbound of the node's metadata is no IP:PORT on loopback")
	}
	_, err = ClientOf(&core.Node{Locality: &core.Locality{Region: "us", SubZone: "1"}}, "eu")
	require.ErrorContains(t, err, "the locality of the node")
}

func TestServiceOf(t *testing.T) {
	for _, c := range []struct {
		of                         Type
		name                       string
		service, separator, domain string
	}{
		{Clusters, "shop", "shop", "", ""},
		{Clusters, "shop@us.example.org", "shop", inDomain, "us.example.org"},
		{Endpoints, "shop@us.example.org", "shop", inDomain, "us.example.org"},
		{Clusters, "shop~us.example.org", "shop", domainFirst, "us.example.org"},
		{Listeners, "shop", "shop", "", ""},
		{Listeners, "shop@us.example.org", "", "", ""},
		{Routes, "Shop", "", "", ""},
		{Clusters, "shop@", "", "", ""},
		{Clusters, "@us.example.org", "", "", ""},
		{Clusters, "shop@US", "", "", ""},
		{Secrets, "shop", "", "", ""},
		{Listeners, InboundPrefix + "127.0.0.1:80", "", "", ""},
	} {
		service, separator, domain := serviceOf(c.of, c.name)
		require.Equal(
			t,
			[]string{c.service, c.separator, c.domain},
			[]string{service, separator, domain},
			"%s %s",
			c.of,
			c.name,
		)
	}
}
