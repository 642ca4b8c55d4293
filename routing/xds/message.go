package xds

import (
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/proto"

	"github.com/ententehq/entente/internal/xdsupdate"
)

func transportSocket(context proto.Message) (*core.TransportSocket, error) {
	config, err := xdsupdate.Packed(context)
	if err != nil {
		return nil, err
	}
	return &core.TransportSocket{
		Name:       tlsSocket,
		ConfigType: &core.TransportSocket_TypedConfig{TypedConfig: config},
	}, nil
}
