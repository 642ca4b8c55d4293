package xdsbootstrap

import (
	"encoding/json"
	"path/filepath"

	"github.com/ententehq/entente/internal/xdsupdate"
)

// agentCluster is the name of Envoy's cluster for the agent.
const agentCluster = "entente_agent"

// httpOptions is the key of a cluster's options for HTTP, and the name of their type.
const httpOptions = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

// MarshalEnvoy returns the bootstrap file of an Envoy that has routes, certificates and validation contexts from the
// agent at the socket Relay, over one delta stream.
func (b Config) MarshalEnvoy() ([]byte, error) {
	socket, err := filepath.Abs(b.Relay)
	if err != nil {
		return nil, err
	}
	type object = map[string]any
	over := object{"ads": object{}, "resource_api_version": "V3"}
	metadata := object{}
	if b.Outbound.IsValid() {
		metadata[xdsupdate.OutboundKey] = b.Outbound.String()
	}
	return json.MarshalIndent(object{
		"node": object{
			"id": b.NodeID, "cluster": b.Home, "metadata": metadata,
			"locality": bootstrapLocality{
				Region: b.Locality.GetRegion(), Zone: b.Locality.GetZone(), SubZone: b.Locality.GetSubZone(),
			},
		},
		"dynamic_resources": object{
			"ads_config": object{
				"api_type": "DELTA_GRPC", "transport_api_version": "V3",
				"grpc_services": []object{{"envoy_grpc": object{"cluster_name": agentCluster}}},
			},
			"cds_config": over, "lds_config": over,
		},
		"static_resources": object{"clusters": []object{{
			"name": agentCluster, "type": "STATIC", "connect_timeout": "2s",
			"typed_extension_protocol_options": object{
				httpOptions: object{
					"@type":                "type.googleapis.com/" + httpOptions,
					"explicit_http_config": object{"http2_protocol_options": object{}},
				},
			},
			"load_assignment": object{
				"cluster_name": agentCluster,
				"endpoints": []object{{"lb_endpoints": []object{{
					"endpoint": object{"address": object{"pipe": object{"path": socket}}},
				}}}},
			},
		}}},
	}, "", "  ")
}
