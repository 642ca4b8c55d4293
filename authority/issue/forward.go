package issue

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/ententehq/entente/access/audit"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/authority/internal/loop"
	"github.com/ententehq/entente/authority/internal/request"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/svid"
	"github.com/ententehq/entente/authority/table"
	"github.com/ententehq/entente/internal/apierror"
	"github.com/ententehq/entente/internal/span"
	"github.com/ententehq/entente/raftstore"
)

const (
	// firstAuthorityWait is the time for which a request waits for the first authority of a domain that was just
	// created.
	firstAuthorityWait = 5 * time.Second
	// memberTimeout is the time that another member has to sign before the next one is tried.
	memberTimeout = 3 * time.Second
)

// lifetime returns the requested lifetime, or that of the domain, which is also the longest.
func lifetime(requested, domain time.Duration) (time.Duration, error) {
	ttl, err := svid.Lifetime(requested, domain)
	if err != nil {
		return 0, apierror.Invalid(apierror.InField("ttl", err))
	}
	return ttl, nil
}

// issueX509 returns an X509-SVID that this member or another one signed.
func (i *Issuer) issueX509(
	ctx context.Context, r *ententev1.IssueX509SVIDRequest, caller string, by requester,
) (*ententev1.IssueX509SVIDResponse, error) {
	parsed, err := svid.ParseX509Request(r)
	if err != nil {
		return nil, apierror.Invalid(err)
	}
	if err := i.checkName(parsed.ID, by); err != nil {
		return nil, err
	}
	// The key has to be the one that was checked here, so the request is forwarded as it came.
	forwarded := &ententev1.SignX509SVIDRequest{
		Request: r, Caller: caller, ForMember: by.member != "", ForAgent: by.agent,
	}
	return signOrForward(ctx, i, parsed.ID.TrustDomain(), plan.X509,
		func(d *Domain) (*ententev1.IssueX509SVIDResponse, error) { return i.signX509(d, parsed, caller) },
		func(ctx context.Context, c ententev1.SigningServiceClient) (*ententev1.IssueX509SVIDResponse, error) {
			return c.SignX509SVID(ctx, forwarded)
		})
}

// issueJWT returns a JWT-SVID that this member or another one signed.
func (i *Issuer) issueJWT(
	ctx context.Context, r *ententev1.IssueJWTSVIDRequest, caller string,
) (*ententev1.IssueJWTSVIDResponse, error) {
	parsed, err := svid.ParseJWTRequest(r)
	if err != nil {
		return nil, apierror.Invalid(err)
	}
	if err := i.checkName(parsed.ID, requester{}); err != nil {
		return nil, err
	}
	forwarded := &ententev1.SignJWTSVIDRequest{Request: r, Caller: caller}
	return signOrForward(ctx, i, parsed.ID.TrustDomain(), plan.JWT,
		func(d *Domain) (*ententev1.IssueJWTSVIDResponse, error) { return i.signJWT(d, parsed, caller) },
		func(ctx context.Context, c ententev1.SigningServiceClient) (*ententev1.IssueJWTSVIDResponse, error) {
			return c.SignJWTSVID(ctx, forwarded)
		})
}

// signOrForward signs with an authority of this member. If this member has none, must not sign, or cannot reach its
// key, the request is forwarded to one member after the other, until one signs or refuses it for a reason that holds on
// every member. A domain was acknowledged before its first authority existed, so the request waits a moment for that.
func signOrForward[R proto.Message](
	ctx context.Context, i *Issuer, td spiffeid.TrustDomain, kind plan.Kind,
	sign func(*Domain) (R, error), remote func(context.Context, ententev1.SigningServiceClient) (R, error),
) (R, error) {
	var none R
	waiting, cancel := context.WithTimeout(ctx, firstAuthorityWait)
	defer cancel()
	for {
		changed := i.config.Changed.Next()
		d := i.State().Domains[td]
		var reason error
		switch {
		case d == nil:
			if hosted, err := table.Hosts(i.config.Store.View(), td.Name()); err != nil {
				return none, raftstore.StatusError(err)
			} else if !hosted {
				return none, request.NotHosted(td.Name())
			}
		case d.ready(kind, i.config.Now()):
			if reason = i.CanSign(); reason == nil {
				_, signing := span.Start(ctx, "sign "+kind.String()+"-svid", span.TrustDomain(td.Name()))
				result, err := sign(d)
				span.End(signing, err)
				if !worthForwarding(err) || len(d.otherSigners[kind]) == 0 {
					return result, err
				}
				reason = err
			}
		}
		if d != nil && len(d.otherSigners[kind]) > 0 {
			return forward(ctx, i, d.otherSigners[kind], td, kind, reason, remote)
		}
		if reason != nil {
			return none, status.Errorf(codes.Unavailable, "%v, and no other member has an active %s authority of %s",
				reason, kind, td)
		}
		if err := loop.WaitFor(waiting, changed, loop.MaxWait); err != nil {
			return none, status.Errorf(codes.Unavailable,
				"no member has an active %s authority of %s; see authority list %s", kind, td, td)
		}
	}
}

// worthForwarding reports whether another member can succeed where this one failed: its key or its audit log failed,
// and the request is valid.
func worthForwarding(err error) bool {
	if err == nil || errors.Is(err, svid.ErrLint) {
		return false
	}
	if errors.Is(err, audit.ErrUnaudited) {
		return true
	}
	_, decided := status.FromError(err)
	return !decided
}

// forward tries members in random order, so that the load of a member that is down spreads evenly. reason is why this
// member did not sign.
func forward[R proto.Message](
	ctx context.Context, i *Issuer, members []string, td spiffeid.TrustDomain, kind plan.Kind, reason error,
	remote func(context.Context, ententev1.SigningServiceClient) (R, error),
) (R, error) {
	var none R
	errs := []error{reason}
	for _, n := range rand.Perm(len(members)) {
		result, err := callMember(ctx, i, members[n], remote)
		if err == nil {
			i.signatures.WithLabelValues(kind.String(), "passed_on").Inc()
			return result, nil
		}
		switch status.Code(err) {
		case codes.InvalidArgument, codes.PermissionDenied:
			return none, err
		}
		if ctx.Err() != nil {
			return none, status.FromContextError(ctx.Err()).Err()
		}
		i.config.Log.Warn("a member could not sign a forwarded request",
			"member", members[n], "trust_domain", td, "kind", kind, "error", err)
		errs = append(errs, fmt.Errorf("member %s: %w", members[n], err))
	}
	return none, status.Errorf(codes.Unavailable, "no member could sign for %s: %s", td,
		loop.OneLine(errors.Join(errs...)))
}

func callMember[R proto.Message](
	ctx context.Context, i *Issuer, member string,
	remote func(context.Context, ententev1.SigningServiceClient) (R, error),
) (R, error) {
	conn, err := i.config.Conn(member)
	if err != nil {
		var none R
		return none, err
	}
	ctx, cancel := context.WithTimeout(ctx, memberTimeout)
	defer cancel()
	return remote(ctx, ententev1.NewSigningServiceClient(conn))
}
