package xds

import (
	"fmt"
	"slices"
	"strings"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/ententehq/entente/routing/plan"
)

// Kind is what kind of program a client is. It decides the form of what it is sent, never its rights.
type Kind uint8

const (
	// Envoy computes loads from health by itself, and reads roots as secrets.
	Envoy Kind = iota + 1
	// GRPC knows no overprovisioning, and reads roots from a SPIFFE bundle map through a certificate provider.
	GRPC
	// GRPCSplit is GRPC without bundle maps: it reads one file of roots a trust domain, and so needs a cluster a domain.
	GRPCSplit
)

// String is the name that metrics use.
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

// RootsKey is the key in the metadata of a node by which a gRPC client says how it reads roots: [RootsMap], the default, or
// [RootsFiles].
const RootsKey = "entente.roots"

// The values of [RootsKey].
const (
	RootsMap   = "bundle_map"
	RootsFiles = "file_per_domain"
)

// noOverprovisioning is the client feature by which gRPC tells itself from Envoy (gRFC A27).
const noOverprovisioning = "envoy.lb.does_not_support_overprovisioning"

// nodeJS is the user agent of @grpc/grpc-js-xds, which reads no bundle map.
const nodeJS = "gRPC Node Pure JS"

// Client is what a node says of itself, as far as it matters. It is comparable.
type Client struct {
	Kind     Kind
	Locality plan.Locality
}

// ClientOf reads a node. One that names no region is taken to be in the region of this cluster; a locality that cannot be
// read is an error.
func ClientOf(node *core.Node, region string) (Client, error) {
	c := Client{Kind: Envoy}
	if slices.Contains(node.GetClientFeatures(), noOverprovisioning) {
		c.Kind = GRPC
		roots := node.GetMetadata().GetFields()[RootsKey].GetStringValue()
		if roots == RootsFiles || (roots == "" && strings.HasPrefix(node.GetUserAgentName(), nodeJS)) {
			c.Kind = GRPCSplit
		}
	}
	l := node.GetLocality()
	if strings.Contains(l.GetRegion()+l.GetZone()+l.GetSubZone(), "/") {
		return Client{}, fmt.Errorf("the locality of the node: %w: a slash stands inside of a part", plan.ErrLocality)
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
