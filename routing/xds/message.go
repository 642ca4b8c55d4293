package xds

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// packed encodes a message. Equal content gives equal bytes on every member.
func packed(m proto.Message) (*anypb.Any, error) {
	out := new(anypb.Any)
	if err := anypb.MarshalFrom(out, m, proto.MarshalOptions{Deterministic: true}); err != nil {
		return nil, fmt.Errorf("encode a %s: %w", m.ProtoReflect().Descriptor().FullName(), err)
	}
	return out, nil
}

// versionOf returns the version of a resource: 128 bits of the digest of its content.
func versionOf(body *anypb.Any) string {
	sum := sha256.Sum256(body.GetValue())
	return hex.EncodeToString(sum[:16])
}

func transportSocket(context proto.Message) (*core.TransportSocket, error) {
	config, err := packed(context)
	if err != nil {
		return nil, err
	}
	return &core.TransportSocket{
		Name:       tlsSocket,
		ConfigType: &core.TransportSocket_TypedConfig{TypedConfig: config},
	}, nil
}
