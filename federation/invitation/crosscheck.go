package invitation

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/federation/relationship"
)

const (
	// crossCheckWithin limits a call to a further member, which only reads what is stored there already.
	crossCheckWithin = 5 * time.Second
	// crossChecks is how often two members with different responses are called, and crossCheckPause the time between:
	// the bundle may change between two responses, and one member may know of a new member before the other.
	crossChecks, crossCheckPause = 8, 250 * time.Millisecond
)

// crossCheck sends the same request to a second member that the token names, if there is one, and returns the response
// that both agree on. A member that was removed from the inviting cluster still holds its identity key, and could
// respond with keys of its own or with a consent that was not given; so one member alone is not believed. If no second
// member is reached, crossCheck returns a warning for the operator.
func (m *Agreements) crossCheck(
	ctx context.Context,
	t Token,
	c *ententev1.AcceptInvitationContent,
	first *ententev1.AcceptInvitationResponse,
	proven [32]byte,
) (answer *ententev1.AcceptInvitationResponse, warnings []string, err error) {
	if len(t.Identities) < 2 {
		return first, nil, nil
	}
	content, err := proto.Marshal(c)
	if err != nil {
		return nil, nil, status.Error(codes.Internal, err.Error())
	}
	for _, address := range t.calls() {
		second, who, err := m.callOne(ctx, crossCheckWithin, address, t.acceptsOther(proven), content)
		if err != nil && decided(err) {
			return nil, nil, contradiction(proven, who, relationship.Clip(status.Convert(err).Message()))
		}
		if err != nil {
			continue // the same member, or not reached
		}
		for range crossChecks {
			if differ(first, second) == "" {
				break
			}
			pause := time.NewTimer(crossCheckPause)
			select {
			case <-pause.C:
			case <-ctx.Done():
				pause.Stop()
				return nil, nil, status.FromContextError(ctx.Err()).Err()
			}
			if again := m.callAgain(ctx, t, content, proven); again != nil {
				first = again
			}
			if again, _, err := m.callOne(ctx, crossCheckWithin, address, t.acceptsOther(proven), content); err == nil {
				second = again
			}
		}
		if what := differ(first, second); what != "" {
			return nil, nil, contradiction(proven, who, what)
		}
		return first, urlWarnings(first.GetOffer(), second.GetOffer()), nil
	}
	return first, []string{
		fmt.Sprintf(
			"only one of the %d members that the invitation names was reached, so its response could not be "+
				"cross-checked; verify with the other operator that all of them are still members", len(t.Identities)),
	}, nil
}

// maxCallsEach bounds how often one address is called to reach one certain member behind it.
const maxCallsEach = 4

// calls returns the addresses to call one after the other to reach a certain member. An address behind which there are
// several members, as of a load balancer, leads to another one each time.
func (t Token) calls() []string {
	if len(t.Addresses) >= len(t.Identities) {
		return t.Addresses
	}
	return slices.Repeat(t.Addresses, min(len(t.Identities), maxCallsEach))
}

// acceptsOther returns a check that accepts the identity keys that the token names, except one.
func (t Token) acceptsOther(than [32]byte) func([32]byte) error {
	return func(presented [32]byte) error {
		if presented == than {
			return errors.New("it is the member that was called already")
		}
		return t.accepts(presented)
	}
}

// callAgain calls the member with one identity key. It returns nil if that member does not respond any more.
func (m *Agreements) callAgain(
	ctx context.Context,
	t Token,
	content []byte,
	proven [32]byte,
) *ententev1.AcceptInvitationResponse {
	for _, address := range t.calls() {
		answer, _, err := m.callOne(ctx, crossCheckWithin, address, func(presented [32]byte) error {
			if presented != proven {
				return errors.New("it is another member")
			}
			return nil
		}, content)
		if err == nil {
			return answer
		}
	}
	return nil
}

// decided reports whether an error is a refusal by a member, as opposed to a failure to reach it.
func decided(err error) bool {
	switch status.Code(err) {
	case codes.PermissionDenied,
		codes.FailedPrecondition,
		codes.InvalidArgument,
		codes.AlreadyExists,
		codes.Unauthenticated:
		return true
	default:
		return false
	}
}

func contradiction(first, second [32]byte, what string) error {
	return status.Errorf(codes.Aborted,
		"the members with the identity keys %x and %x, which the invitation names, disagree: %s. Nothing is stored "+
			"here. If that cluster is changing at the moment, accept the same token again; if they still disagree, "+
			"one of them may have been removed: inform the other operator", first[:8], second[:8], what)
}

// differ describes how two responses of one cluster to one invitation differ in what decides trust, or returns "".
// Addresses and URLs may differ between members.
func differ(a, b *ententev1.AcceptInvitationResponse) string {
	one, two := a.GetOffer(), b.GetOffer()
	sorted := func(identities [][]byte) [][]byte { return slices.SortedFunc(slices.Values(identities), bytes.Compare) }
	switch {
	case one.GetTrustDomain() != two.GetTrustDomain() || one.GetHomeTrustDomain() != two.GetHomeTrustDomain():
		return "its trust domain or home trust domain"
	case !bytes.Equal(one.GetBundle(), two.GetBundle()) || !bytes.Equal(one.GetHomeBundle(), two.GetHomeBundle()):
		return "its bundle"
	case one.GetProfile() != two.GetProfile() || one.GetEndpointSpiffeId() != two.GetEndpointSpiffeId() ||
		!bytes.Equal(one.GetWebRoots(), two.GetWebRoots()):
		return "how its endpoint authenticates"
	case !slices.EqualFunc(sorted(one.GetIdentities()), sorted(two.GetIdentities()), bytes.Equal):
		return "its members"
	case a.GetApproved() != b.GetApproved():
		return "whether the agreement is approved"
	}
	return ""
}

// urlWarnings returns a warning if two members name different URLs of endpoints that authenticate only by their host
// names.
func urlWarnings(a, b *ententev1.FederationOffer) []string {
	urls := func(o *ententev1.FederationOffer) []string {
		return slices.Sorted(slices.Values(slices.Concat(o.GetUrls(), o.GetHomeUrls())))
	}
	if a.GetProfile() != ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_WEB || slices.Equal(urls(a), urls(b)) {
		return nil
	}
	return []string{
		"two members of the other cluster name different URLs of its bundle endpoint, which authenticates only by " +
			"its host name: check them with `entente federation show` before you approve",
	}
}
