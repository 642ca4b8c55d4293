package authority

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
)

// maxWatched bounds the names of one watch; who wants more watches all.
const maxWatched = 1000

// WatchAuthorities tells which authorities were tainted or revoked, at once and at each change. A watcher that is slower
// than the changes gets the newest state, and never what lay between.
func (s *svidService) WatchAuthorities(r *ententev1.WatchAuthoritiesRequest, stream grpc.ServerStreamingServer[ententev1.WatchAuthoritiesResponse]) error {
	if n := len(r.GetTrustDomains()); n > maxWatched {
		return status.Errorf(codes.InvalidArgument, "%d trust domains are named; name %d at most, or none to watch all", n, maxWatched)
	}
	wanted := map[spiffeid.TrustDomain]bool{}
	for _, name := range r.GetTrustDomains() {
		td, err := parseDomainName(name)
		if err != nil {
			return err
		}
		wanted[td] = true
	}
	var sent *ententev1.WatchAuthoritiesResponse
	for {
		changed := s.m.changed.next()
		now := s.m.signing.Load().distrusted(wanted)
		if sent == nil || !slices.EqualFunc(sent.GetDistrusted(), now.GetDistrusted(), func(a, b *ententev1.DistrustedAuthority) bool { return proto.Equal(a, b) }) {
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

// distrusted are the tainted and revoked authorities of the wanted domains, of all for none, in one order.
func (s *signingState) distrusted(wanted map[spiffeid.TrustDomain]bool) *ententev1.WatchAuthoritiesResponse {
	answer := &ententev1.WatchAuthoritiesResponse{Revision: uint64(s.revision)}
	for td, d := range s.domains {
		if len(wanted) > 0 && !wanted[td] {
			continue
		}
		for _, a := range d.authorities {
			if !a.State.Distrusted() {
				continue
			}
			answer.Distrusted = append(answer.Distrusted, &ententev1.DistrustedAuthority{
				TrustDomain: td.Name(), Id: a.ID, Kind: ententev1.AuthorityKind(a.Kind), State: ententev1.AuthorityState(a.State), //nolint:gosec // small by definition
				SubjectKeyId: hex.EncodeToString(d.keyIDs[a.ID]),
			})
		}
	}
	slices.SortFunc(answer.Distrusted, func(a, b *ententev1.DistrustedAuthority) int {
		return cmp.Or(cmp.Compare(a.GetTrustDomain(), b.GetTrustDomain()), cmp.Compare(a.GetId(), b.GetId()))
	})
	return answer
}
