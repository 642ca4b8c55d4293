package xds

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/ententehq/entente/internal/xdsupdate"
	"github.com/ententehq/entente/routing/plan"
)

// Kind is the kind of program of a client. It decides the form of what the client is sent, never its rights.
type Kind uint8

const (
	// Envoy computes loads from health, and reads roots as secrets.
	Envoy Kind = iota + 1
	// GRPC does not support overprovisioning, and reads roots from a SPIFFE bundle map through a certificate provider.
	GRPC
	// GRPCSplit is GRPC without bundle maps: it reads one file of roots for each trust domain, and so needs one cluster
	// for each domain.
	GRPCSplit
)

// String returns the name that metrics use.
func (k Kind) String() string {
	switch k {
	case Envoy:
		return "envoy"
	case GRPC:
		return "grpc"
	case GRPCSplit:
		return "grpc_split"
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// RootsKey is the key in the metadata of a node under which a gRPC client states how it reads roots: [RootsMap], the
// default, or [RootsFiles].
const RootsKey = xdsupdate.RootsKey

// The values of [RootsKey].
const (
	RootsMap   = "bundle_map"
	RootsFiles = "file_per_domain"
)

// Client is the relevant part of a node. It is comparable.
type Client struct {
	Kind     Kind
	Locality plan.Locality
	// CertificateOverADS means that Envoy has its own certificate on the stream, from the agent between it and a
	// member.
	CertificateOverADS bool
	// Outbound is where Envoy listens for requests of its own service. It is not set for gRPC.
	Outbound netip.AddrPort
}

// ClientOf parses a node. A node without a region counts as in the region of this cluster. A malformed locality is an
// error.
func ClientOf(node *core.Node, region string) (Client, error) {
	c := Client{Kind: Envoy}
	if slices.Contains(node.GetClientFeatures(), xdsupdate.NoOverprovisioning) {
		c.Kind = GRPC
		roots := node.GetMetadata().GetFields()[RootsKey].GetStringValue()
		if roots == RootsFiles || (roots == "" && strings.HasPrefix(node.GetUserAgentName(), xdsupdate.NodeJS)) {
			c.Kind = GRPCSplit
		}
	}
	c.CertificateOverADS = c.Kind == Envoy &&
		node.GetMetadata().GetFields()[xdsupdate.CertificateKey].GetStringValue() == xdsupdate.CertificateOverADS
	if c.Kind == Envoy {
		c.Outbound = outboundAddress
		if text := node.GetMetadata().GetFields()[xdsupdate.OutboundKey].GetStringValue(); text != "" {
			var err error
			if c.Outbound, err = netip.ParseAddrPort(text); err != nil || !c.Outbound.Addr().IsLoopback() {
				return Client{}, fmt.Errorf("%s of the node's metadata is no IP:PORT on loopback",
					xdsupdate.OutboundKey)
			}
		}
	}
	l := node.GetLocality()
	if strings.Contains(l.GetRegion()+l.GetZone()+l.GetSubZone(), "/") {
		return Client{}, fmt.Errorf("the locality of the node: %w: a part contains a slash", plan.ErrLocality)
	}
	text := l.GetRegion()
	if text == "" {
		text = region
	}
	if l.GetZone() != "" || l.GetSubZone() != "" {
		text += "/" + l.GetZone()
	}
	if l.GetSubZone() != "" {
		text += "/" + l.GetSubZone()
	}
	var err error
	if c.Locality, err = plan.ParseLocality(text); err != nil {
		return Client{}, fmt.Errorf("the locality of the node: %w", err)
	}
	return c, nil
}
