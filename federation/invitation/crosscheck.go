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
	// crossCheckWithin bounds a call to a second member, which returns what it knows already.
	crossCheckWithin = 5 * time.Second
	// crossChecks is how often two members whose answers differ are called, crossCheckPause the time between. The
	// bundle may change between two answers, and one member may learn of a new member before another.
	crossChecks, crossCheckPause = 8, 250 * time.Millisecond
)

// crossCheck calls a second member that the token names, if there is one, and returns the answer that both give. A
// member that was removed from the inviting cluster still has its identity key, and could answer with keys of its own
// or with a consent that was not given, so that its answer alone must not count. If no second member is reached,
// crossCheck returns a warning for the operator.
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
	for _, address := range t.Addresses {
		second, who, err := m.callOne(ctx, crossCheckWithin, address, t.acceptsOther(proven), content)
		if err != nil && decided(err) {
			return nil, nil, contradiction(proven, who, relationship.Clip(status.Convert(err).Message()))
		}
		if err != nil {
			continue // it is that member, or is not reached
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
			"one of the %d members that the invitation names was reached, and no second one that says the same; the "+
				"other operator can tell "+
				"whether all of them are members still",
			len(t.Identities),
		),
	}, nil
}

// acceptsOther accepts the members that the token names, except one.
func (t Token) acceptsOther(than [32]byte) func([32]byte) error {
	return func(presented [32]byte) error {
		if presented == than {
			return errors.New("it is the member that was asked already")
		}
		return t.accepts(presented)
	}
}

// callAgain calls the member with an identity key. It returns nil if that member does not answer any more.
func (m *Agreements) callAgain(
	ctx context.Context,
	t Token,
	content []byte,
	proven [32]byte,
) *ententev1.AcceptInvitationResponse {
	for _, address := range t.Addresses {
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

// decided reports whether a member has refused, as opposed to one that could not be called.
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
	return status.Errorf(
		codes.Aborted,
		"the members with the identity keys %x and %x, which the invitation names, do not say the same: %s. Nothing "+
			"is stored here. If that cluster is changing "+
			"just now, accept the same token again; if it stays so, one of them may be a member no more: tell the "+
			"other operator",
		first[:8],
		second[:8],
		what,
	)
}

// differ describes what differs between two answers for one invitation, or returns "". The URLs and addresses may
// differ between members.
func differ(a, b *ententev1.AcceptInvitationResponse) string {
	one, two := a.GetOffer(), b.GetOffer()
	sorted := func(identities [][]byte) [][]byte { return slices.SortedFunc(slices.Values(identities), bytes.Compare) }
	switch {
	case one.GetTrustDomain() != two.GetTrustDomain() || one.GetHomeTrustDomain() != two.GetHomeTrustDomain():
		return "which trust domain it is of"
	case !bytes.Equal(one.GetBundle(), two.GetBundle()) || !bytes.Equal(one.GetHomeBundle(), two.GetHomeBundle()):
		return "its bundle"
	case one.GetProfile() != two.GetProfile() || one.GetEndpointSpiffeId() != two.GetEndpointSpiffeId():
		return "how its endpoint proves itself"
	case !slices.EqualFunc(sorted(one.GetIdentities()), sorted(two.GetIdentities()), bytes.Equal):
		return "who its members are"
	case a.GetApproved() != b.GetApproved():
		return "whether the agreement is approved"
	}
	return ""
}

// urlWarnings warns about endpoints that authenticate by host name alone and differ between the two members.
func urlWarnings(a, b *ententev1.FederationOffer) []string {
	urls := func(o *ententev1.FederationOffer) []string {
		return slices.Sorted(slices.Values(slices.Concat(o.GetUrls(), o.GetHomeUrls())))
	}
	if a.GetProfile() != ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_WEB || slices.Equal(urls(a), urls(b)) {
		return nil
	}
	return []string{
		"two members of the other cluster name different URLs of its bundle endpoint, which proves itself by its host " +
			"name alone: look at them with `entente federation show` before you approve",
	}
}
