package sds

import (
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ententehq/entente/agent/cache"
	"github.com/ententehq/entente/agent/discovery"
	"github.com/ententehq/entente/agent/workloadapi"
	"github.com/ententehq/entente/internal/xdsupdate"
)

// Source has the secrets of one workload. It is used from one goroutine.
type Source struct {
	identifier *workloadapi.Identifier
	caller     workloadapi.Caller
	method     string
	names      Names

	state cache.State
	ready bool
}

var _ discovery.Source = (*Source)(nil)

// NewSource returns the source for a caller of a method.
func NewSource(
	identifier *workloadapi.Identifier, caller workloadapi.Caller, method string, names Names,
) *Source {
	return &Source{identifier: identifier, caller: caller, method: method, names: names}
}

// Changed implements [discovery.Source]. It reads the state that Wanted renders.
func (s *Source) Changed() (changed [2]<-chan struct{}, err error) {
	s.state, changed[0], s.ready, err = s.identifier.Present(s.caller, s.method)
	return changed, err
}

// State returns what Changed has read. ready is false before an SVID is there.
func (s *Source) State() (state cache.State, ready bool) { return s.state, s.ready }

// Subscribe implements [discovery.Source].
func (s *Source) Subscribe(xdsupdate.Type, discovery.Subscription) error { return nil }

// Wanted implements [discovery.Source].
func (s *Source) Wanted(
	t xdsupdate.Type, of discovery.Subscription,
) (resources map[string]*xdsupdate.Resource, complete bool, err error) {
	if !s.ready || t != xdsupdate.Secrets {
		return map[string]*xdsupdate.Resource{}, false, nil
	}
	if resources, err = s.names.Resources(s.state, of.Names, of.Wildcard); err != nil {
		return nil, false, status.Error(codes.Internal, err.Error())
	}
	return resources, true, nil
}

// Close implements [discovery.Source].
func (s *Source) Close() {}
