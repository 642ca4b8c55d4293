package xds

import (
	"fmt"
	"net/netip"

	listener "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	route "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	router "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcm "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"github.com/ententehq/entente/internal/xdsupdate"
)

// The names of the two filters that are used.
const (
	httpManager = "envoy.filters.network.http_connection_manager"
	httpRouter  = "envoy.filters.http.router"
)

// outboundAddress is where Envoy listens for outbound requests of its own service unless its node states another
// address: loopback, at the usual port of meshes.
var outboundAddress = netip.MustParseAddrPort("127.0.0.1:15001")

// serviceListener returns the listener that a gRPC client requests by the name of a service. It names the route table.
func serviceListener(service string) (*listener.Listener, error) {
	manager, err := connectionManager(service)
	if err != nil {
		return nil, err
	}
	config, err := xdsupdate.Packed(manager)
	if err != nil {
		return nil, err
	}
	return &listener.Listener{Name: service, ApiListener: &listener.ApiListener{ApiListener: config}}, nil
}

// outboundListener returns the only listener of Envoy.
func outboundListener(at netip.AddrPort) (*listener.Listener, error) {
	manager, err := connectionManager(Outbound)
	if err != nil {
		return nil, err
	}
	filter, err := filterOf(manager)
	if err != nil {
		return nil, err
	}
	return &listener.Listener{
		Name: Outbound, Address: addressOf(at),
		FilterChains: []*listener.FilterChain{{Filters: []*listener.Filter{filter}}},
	}, nil
}

// inboundListener returns the listener that a gRPC server requests by its own address: mutual TLS for its callers.
func inboundListener(address netip.AddrPort) (*listener.Listener, error) {
	routes := &route.RouteConfiguration{Name: "inbound", VirtualHosts: []*route.VirtualHost{{
		Name: "inbound", Domains: []string{"*"},
		Routes: []*route.Route{{
			Match:  &route.RouteMatch{PathSpecifier: &route.RouteMatch_Prefix{Prefix: ""}},
			Action: &route.Route_NonForwardingAction{NonForwardingAction: &route.NonForwardingAction{}},
		}},
	}}}
	filters, err := routerFilters()
	if err != nil {
		return nil, err
	}
	filter, err := filterOf(&hcm.HttpConnectionManager{
		StatPrefix:     "inbound",
		RouteSpecifier: &hcm.HttpConnectionManager_RouteConfig{RouteConfig: routes},
		HttpFilters:    filters,
	})
	if err != nil {
		return nil, err
	}
	socket, err := inboundTLS()
	if err != nil {
		return nil, err
	}
	return &listener.Listener{
		Name: InboundPrefix + address.String(), Address: addressOf(address),
		FilterChains: []*listener.FilterChain{
			{Name: "inbound", Filters: []*listener.Filter{filter}, TransportSocket: socket},
		},
	}, nil
}

func connectionManager(routes string) (*hcm.HttpConnectionManager, error) {
	filters, err := routerFilters()
	if err != nil {
		return nil, err
	}
	return &hcm.HttpConnectionManager{
		StatPrefix: routes,
		RouteSpecifier: &hcm.HttpConnectionManager_Rds{Rds: &hcm.Rds{
			ConfigSource: overADS(), RouteConfigName: routes,
		}},
		HttpFilters: filters,
	}, nil
}

func routerFilters() ([]*hcm.HttpFilter, error) {
	config, err := xdsupdate.Packed(&router.Router{})
	if err != nil {
		return nil, err
	}
	return []*hcm.HttpFilter{{Name: httpRouter, ConfigType: &hcm.HttpFilter_TypedConfig{TypedConfig: config}}}, nil
}

func filterOf(m *hcm.HttpConnectionManager) (*listener.Filter, error) {
	config, err := xdsupdate.Packed(m)
	if err != nil {
		return nil, err
	}
	return &listener.Filter{Name: httpManager, ConfigType: &listener.Filter_TypedConfig{TypedConfig: config}}, nil
}

// inboundAddress parses the address in the name of an inbound listener.
func inboundAddress(text string) (netip.AddrPort, error) {
	a, err := netip.ParseAddrPort(text)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf(
			"%s must be followed by the IP:port that the server listens on: %w",
			InboundPrefix, err,
		)
	}
	return a, nil
}
