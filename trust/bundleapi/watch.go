package bundleapi

import (
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/internal/apierror"
)

// WatchBundles sends the present bundles, in a message even if there is none, and then each change.
func (s *Service) WatchBundles(
	r *ententev1.WatchBundlesRequest,
	stream grpc.ServerStreamingServer[ententev1.WatchBundlesResponse],
) error {
	names, err := watchedNames(r.GetTrustDomains())
	if err != nil {
		return err
	}
	s.watchers.Inc()
	defer s.watchers.Dec()
	var sent *snapshot
	for {
		current, changed, closed := s.broadcast.newest()
		if closed {
			return status.Error(codes.Unavailable, "this member is stopping; watch again, at another member")
		}
		if current != nil && current != sent {
			todo := since(sent, current).only(names)
			if sent == nil || !todo.empty() {
				for _, m := range responses(current.revision, todo, maxMessageBytes) {
					if err := stream.Send(m); err != nil {
						return err
					}
					s.sent.Inc()
				}
			}
			sent = current
		}
		select {
		case <-stream.Context().Done():
			return status.FromContextError(stream.Context().Err()).Err()
		case <-changed:
		}
	}
}

// watchedNames returns the names of a watch, or nil for all.
func watchedNames(list []string) (map[string]bool, error) {
	if len(list) == 0 {
		return nil, nil
	}
	if len(list) > maxWatchedDomains {
		return nil, apierror.Invalid(apierror.InField("trust_domains", fmt.Errorf(
			"a watch of %d trust domains is too large: name at most %d, or none to watch all",
			len(list),
			maxWatchedDomains,
		)))
	}
	names := make(map[string]bool, len(list))
	for i, name := range list {
		td, err := bundle.ParseTrustDomain(name)
		if err != nil {
			return nil, apierror.Invalid(apierror.InField(fmt.Sprintf("trust_domains[%d]", i), err))
		}
		names[td.Name()] = true
	}
	return names, nil
}
