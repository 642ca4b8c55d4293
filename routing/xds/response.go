package xds

import (
	"context"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"

	"github.com/ententehq/entente/internal/xdsupdate"
)

// response is an update as go-control-plane's server sends it on a state-of-the-world stream.
type response struct {
	request *discovery.DiscoveryRequest
	update  *xdsupdate.Update
	version string
}

var _ cache.Response = (*response)(nil)

// GetDiscoveryResponse implements [cache.Response]. The server adds the nonce.
func (r *response) GetDiscoveryResponse() (*discovery.DiscoveryResponse, error) {
	return &discovery.DiscoveryResponse{
		TypeUrl: r.request.GetTypeUrl(), VersionInfo: r.version, Resources: xdsupdate.Bodies(r.update.Send),
	}, nil
}

// GetRequest implements [cache.Response].
func (r *response) GetRequest() *discovery.DiscoveryRequest { return r.request }

// GetVersion implements [cache.Response].
func (r *response) GetVersion() (string, error) { return r.version, nil }

// GetResponseVersion implements [cache.Response].
func (r *response) GetResponseVersion() string { return r.version }

// GetReturnedResources implements [cache.Response].
func (r *response) GetReturnedResources() map[string]string { return r.update.Has }

// GetContext implements [cache.Response].
func (r *response) GetContext() context.Context { return context.Background() }

// deltaResponse is an update on a delta stream.
type deltaResponse struct {
	request *discovery.DeltaDiscoveryRequest
	update  *xdsupdate.Update
	version string
}

var _ cache.DeltaResponse = (*deltaResponse)(nil)

// GetDeltaDiscoveryResponse implements [cache.DeltaResponse]. The server adds the nonce.
func (r *deltaResponse) GetDeltaDiscoveryResponse() (*discovery.DeltaDiscoveryResponse, error) {
	m := &discovery.DeltaDiscoveryResponse{
		TypeUrl: r.request.GetTypeUrl(), SystemVersionInfo: r.version, RemovedResources: r.update.Removed,
	}
	for _, one := range r.update.Send {
		m.Resources = append(m.Resources, &discovery.Resource{Name: one.Name, Version: one.Version, Resource: one.Body})
	}
	return m, nil
}

// GetDeltaRequest implements [cache.DeltaResponse].
func (r *deltaResponse) GetDeltaRequest() *discovery.DeltaDiscoveryRequest { return r.request }

// GetSystemVersion implements [cache.DeltaResponse].
func (r *deltaResponse) GetSystemVersion() (string, error) { return r.version, nil }

// GetResponseVersion implements [cache.DeltaResponse].
func (r *deltaResponse) GetResponseVersion() string { return r.version }

// GetNextVersionMap implements [cache.DeltaResponse].
func (r *deltaResponse) GetNextVersionMap() map[string]string { return r.update.Has }

// GetReturnedResources implements [cache.DeltaResponse].
func (r *deltaResponse) GetReturnedResources() map[string]string { return r.update.Has }

// GetContext implements [cache.DeltaResponse].
func (r *deltaResponse) GetContext() context.Context { return context.Background() }
