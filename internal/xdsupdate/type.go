package xdsupdate

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// Type is the URL of a type of resource.
type Type string

// The types that are served.
const (
	Secrets   Type = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
	Clusters  Type = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	Endpoints Type = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	Listeners Type = "type.googleapis.com/envoy.config.listener.v3.Listener"
	Routes    Type = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
)

// Order is the order in which a stream is sent changes: a resource is sent before those that refer to it.
var Order = [...]Type{Secrets, Clusters, Endpoints, Listeners, Routes}

// Short returns the name that metrics and logs use.
func (t Type) Short() string {
	switch t {
	case Secrets:
		return "secrets"
	case Clusters:
		return "clusters"
	case Endpoints:
		return "endpoints"
	case Listeners:
		return "listeners"
	case Routes:
		return "routes"
	}
	return "other"
}

// Whole reports whether a state-of-the-world response of the type contains everything that the client is to have, so
// that a resource which is not in it is deleted.
func (t Type) Whole() bool { return t == Listeners || t == Clusters }

// Resource is one version of a resource. It must not be modified.
type Resource struct {
	Name    string
	Version string
	// Body is nil if the resource does not exist and no message expresses that.
	Body *anypb.Any
	// Absent means that the resource does not exist. Body is then what a state-of-the-world stream is sent instead.
	Absent bool
}

// AbsentVersion is the version of a resource that does not exist.
const AbsentVersion = "absent"

// Present returns a resource with a message. Its version is a digest of the content: 128 bits.
func Present(name string, m proto.Message) (*Resource, error) {
	body, err := Packed(m)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(body.GetValue())
	return &Resource{Name: name, Version: hex.EncodeToString(sum[:16]), Body: body}, nil
}

// Missing returns a resource that does not exist.
func Missing(t Type, name string) (*Resource, error) {
	r := &Resource{Name: name, Version: AbsentVersion, Absent: true}
	var err error
	switch t {
	case Routes:
		r.Body, err = Packed(&route.RouteConfiguration{Name: name})
	case Endpoints:
		r.Body, err = Packed(&endpoint.ClusterLoadAssignment{ClusterName: name})
	}
	return r, err
}

// Packed encodes a message. Equal content gives equal bytes everywhere.
func Packed(m proto.Message) (*anypb.Any, error) {
	out := new(anypb.Any)
	if err := anypb.MarshalFrom(out, m, proto.MarshalOptions{Deterministic: true}); err != nil {
		return nil, fmt.Errorf("encode a %s: %w", m.ProtoReflect().Descriptor().FullName(), err)
	}
	return out, nil
}

// Bodies returns the content of resources for a state-of-the-world response.
func Bodies(list []*Resource) []*anypb.Any {
	bodies := make([]*anypb.Any, 0, len(list))
	for _, r := range list {
		if r.Body != nil {
			bodies = append(bodies, r.Body)
		}
	}
	return bodies
}
