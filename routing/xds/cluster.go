package xds

import (
	"time"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	aggregate "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/aggregate/v3"
	upstream "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	xdstype "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/ententehq/entente/internal/xdsupdate"
)

// connectTimeout is how long a client waits for an instance to accept a connection before it tries another.
const connectTimeout = 2 * time.Second

// endpointCluster returns a cluster whose instances are the endpoints of the same name.
func endpointCluster(name string, socket *core.TransportSocket) *cluster.Cluster {
	return &cluster.Cluster{
		Name:                 name,
		ClusterDiscoveryType: &cluster.Cluster_Type{Type: cluster.Cluster_EDS},
		EdsClusterConfig:     &cluster.Cluster_EdsClusterConfig{EdsConfig: overADS(), ServiceName: name},
		ConnectTimeout:       durationpb.New(connectTimeout),
		LbPolicy:             cluster.Cluster_ROUND_ROBIN,
		TransportSocket:      socket,
	}
}

// httpOptions is the key of a cluster's options for HTTP.
const httpOptions = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

// envoyCluster returns a cluster for Envoy, which balances by locality and spills by health with the same numbers as a
// hint. The version of HTTP upstream is that of the downstream connection.
func envoyCluster(name string, socket *core.TransportSocket, panicThreshold uint32) (*cluster.Cluster, error) {
	c := endpointCluster(name, socket)
	c.CommonLbConfig = &cluster.Cluster_CommonLbConfig{
		HealthyPanicThreshold: &xdstype.Percent{Value: float64(panicThreshold)},
		LocalityConfigSpecifier: &cluster.Cluster_CommonLbConfig_LocalityWeightedLbConfig_{
			LocalityWeightedLbConfig: &cluster.Cluster_CommonLbConfig_LocalityWeightedLbConfig{},
		},
	}
	options, err := xdsupdate.Packed(&upstream.HttpProtocolOptions{
		UpstreamProtocolOptions: &upstream.HttpProtocolOptions_UseDownstreamProtocolConfig{
			UseDownstreamProtocolConfig: &upstream.HttpProtocolOptions_UseDownstreamHttpConfig{
				HttpProtocolOptions:  &core.Http1ProtocolOptions{},
				Http2ProtocolOptions: &core.Http2ProtocolOptions{},
			},
		},
	})
	if err != nil {
		return nil, err
	}
	c.TypedExtensionProtocolOptions = map[string]*anypb.Any{httpOptions: options}
	return c, nil
}

// aggregateCluster returns a cluster that tries other clusters in order. The next is used when all before it are empty.
func aggregateCluster(name string, children []string) (*cluster.Cluster, error) {
	config, err := xdsupdate.Packed(&aggregate.ClusterConfig{Clusters: children})
	if err != nil {
		return nil, err
	}
	return &cluster.Cluster{
		Name:           name,
		ConnectTimeout: durationpb.New(connectTimeout),
		LbPolicy:       cluster.Cluster_ROUND_ROBIN,
		ClusterDiscoveryType: &cluster.Cluster_ClusterType{ClusterType: &cluster.Cluster_CustomClusterType{
			Name: "envoy.clusters.aggregate", TypedConfig: config,
		}},
	}, nil
}

func percent(n uint32) *wrapperspb.UInt32Value { return wrapperspb.UInt32(n) }
