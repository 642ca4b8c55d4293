package issue

import (
	"cmp"
	"encoding/hex"
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/authority/internal/request"
)

// maxWatched bounds the names in one watch. A watch without names covers all domains.
const maxWatched = 1000

// WatchAuthorities sends the tainted and revoked authorities, at once and after each change. A watcher that is slower
// than the changes receives the newest state only.
func (s *svidService) WatchAuthorities(
	r *ententev1.WatchAuthoritiesRequest, stream grpc.ServerStreamingServer[ententev1.WatchAuthoritiesResponse],
) error {
	if n := len(r.GetTrustDomains()); n > maxWatched {
		return status.Errorf(codes.InvalidArgument,
			"%d trust domains are named; name %d at most, or none to watch all", n, maxWatched)
	}
	wanted := map[spiffeid.TrustDomain]bool{}
	for _, name := range r.GetTrustDomains() {
		td, err := request.ParseDomain(name)
		if err != nil {
			return err
		}
		wanted[td] = true
	}
	var sent *ententev1.WatchAuthoritiesResponse
	for {
		changed := s.issuer.config.Changed.Next()
		now := s.issuer.State().distrusted(wanted)
		if sent == nil || !slices.EqualFunc(sent.GetDistrusted(), now.GetDistrusted(), equal) {
			if err := stream.Send(now); err != nil {
				return err
			}
			sent = now
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return status.FromContextError(stream.Context().Err()).Err()
		}
	}
}

func equal(a, b *ententev1.DistrustedAuthority) bool { return proto.Equal(a, b) }

// distrusted returns the tainted and revoked authorities of the wanted domains in a stable order. An empty set stands
// for all domains.
func (s *State) distrusted(wanted map[spiffeid.TrustDomain]bool) *ententev1.WatchAuthoritiesResponse {
	response := &ententev1.WatchAuthoritiesResponse{Revision: uint64(s.Revision)}
	for td, d := range s.Domains {
		if len(wanted) > 0 && !wanted[td] {
			continue
		}
		for _, a := range d.Authorities {
			if !a.State.Distrusted() {
				continue
			}
			response.Distrusted = append(response.Distrusted, &ententev1.DistrustedAuthority{
				TrustDomain: td.Name(), Id: a.ID,
				Kind:         ententev1.AuthorityKind(a.Kind),   //nolint:gosec // small by definition
				State:        ententev1.AuthorityState(a.State), //nolint:gosec // small by definition
				SubjectKeyId: hex.EncodeToString(d.keyIDs[a.ID]),
			})
		}
	}
	slices.SortFunc(response.Distrusted, func(a, b *ententev1.DistrustedAuthority) int {
		return cmp.Or(cmp.Compare(a.GetTrustDomain(), b.GetTrustDomain()), cmp.Compare(a.GetId(), b.GetId()))
	})
	return response
}
