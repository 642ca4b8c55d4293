package xdsupdate

import (
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/structpb"
)

// NoOverprovisioning is the client feature that distinguishes gRPC from Envoy (gRFC A27).
const NoOverprovisioning = "envoy.lb.does_not_support_overprovisioning"

// NodeJS starts the user agent of @grpc/grpc-js-xds, which does not read bundle maps.
const NodeJS = "gRPC Node Pure JS"

// RootsKey is the key in the metadata of a node under which a gRPC client states how it reads roots.
const RootsKey = "entente.roots"

const (
	// metadataKey is the key of the metadata of endpoints, foreignKey that of the trust domain of one that is not
	// hosted by the cluster that sends it.
	metadataKey = "entente"
	foreignKey  = "foreign_trust_domain"
)

// ForeignMetadata returns the metadata of an endpoint in a foreign trust domain. Whoever keeps an assignment without
// contact to a cluster knows by it what the end of that trust would concern.
func ForeignMetadata(domain string) *core.Metadata {
	return &core.Metadata{FilterMetadata: map[string]*structpb.Struct{metadataKey: {
		Fields: map[string]*structpb.Value{foreignKey: structpb.NewStringValue(domain)},
	}}}
}

// Foreign reports whether an endpoint is in a foreign trust domain.
func Foreign(e *endpoint.LbEndpoint) bool {
	return e.GetMetadata().GetFilterMetadata()[metadataKey].GetFields()[foreignKey].GetStringValue() != ""
}

// OutboundKey is the key in the metadata of a node under which Envoy states where it listens for requests of its own
// service: IP:PORT on loopback.
const OutboundKey = "entente.outbound"

// CertificateKey is the key in the metadata of a node under which Envoy states where its own certificate is:
// [CertificateOverADS], or in its own bootstrap file, the default.
const (
	CertificateKey     = "entente.certificate"
	CertificateOverADS = "ads"
)
