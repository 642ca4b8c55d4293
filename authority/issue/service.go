package issue

import (
	"context"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ententehq/entente/access"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/svid"
	"github.com/ententehq/entente/raftstore"
)

// svidService serves entente.v1.SVIDService.
type svidService struct {
	ententev1.UnimplementedSVIDServiceServer
	issuer *Issuer
}

// SVIDService returns the service that issues SVIDs. Access is checked before it is called; it refuses names below
// /entente/ itself.
func (i *Issuer) SVIDService() ententev1.SVIDServiceServer { return &svidService{issuer: i} }

// IssueX509SVID signs an X509-SVID, on this member or on another one.
func (s *svidService) IssueX509SVID(
	ctx context.Context, r *ententev1.IssueX509SVIDRequest,
) (*ententev1.IssueX509SVIDResponse, error) {
	if err := s.issuer.limiter.admit(access.CallerFrom(ctx), plan.X509); err != nil {
		return nil, err
	}
	response, err := s.issuer.issueX509(ctx, r, access.CallerFrom(ctx).String(), requester{})
	return response, signingError(err)
}

// IssueJWTSVID signs a JWT-SVID, on this member or on another one.
func (s *svidService) IssueJWTSVID(
	ctx context.Context, r *ententev1.IssueJWTSVIDRequest,
) (*ententev1.IssueJWTSVIDResponse, error) {
	if err := s.issuer.limiter.admit(access.CallerFrom(ctx), plan.JWT); err != nil {
		return nil, err
	}
	response, err := s.issuer.issueJWT(ctx, r, access.CallerFrom(ctx).String())
	return response, signingError(err)
}

// signingError returns the status of an error, with the reason of an error of the store. One without a status is
// Unavailable: the audit log or the key of this member failed, and another member can succeed.
func signingError(err error) error {
	known := raftstore.StatusError(err)
	if _, decided := status.FromError(err); decided || status.Code(known) != codes.Internal {
		return known
	}
	return status.Error(codes.Unavailable, err.Error())
}

// signingService serves entente.v1.SigningService, to the members of the cluster alone.
type signingService struct {
	ententev1.UnimplementedSigningServiceServer
	issuer *Issuer
}

// SigningService returns the service that signs for other members. It never forwards a request, so that no request
// travels in a circle.
func (i *Issuer) SigningService() ententev1.SigningServiceServer { return &signingService{issuer: i} }

// SignX509SVID signs with an active authority of this member.
func (s *signingService) SignX509SVID(
	ctx context.Context, r *ententev1.SignX509SVIDRequest,
) (*ententev1.IssueX509SVIDResponse, error) {
	member, err := callingMember(ctx)
	if err != nil {
		return nil, err
	}
	request, err := svid.ParseX509Request(r.GetRequest())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	by := requester{agent: r.GetForAgent()}
	if r.GetForMember() {
		by = requester{member: member}
	}
	if err := s.issuer.checkName(request.ID, by); err != nil {
		return nil, err
	}
	d, err := s.issuer.signingDomain(request.ID.TrustDomain(), plan.X509)
	if err != nil {
		return nil, err
	}
	response, err := s.issuer.signX509(d, request, through(r.GetCaller(), member))
	return response, signingError(err)
}

// SignJWTSVID signs with an active authority of this member.
func (s *signingService) SignJWTSVID(
	ctx context.Context, r *ententev1.SignJWTSVIDRequest,
) (*ententev1.IssueJWTSVIDResponse, error) {
	member, err := callingMember(ctx)
	if err != nil {
		return nil, err
	}
	request, err := svid.ParseJWTRequest(r.GetRequest())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if err := s.issuer.checkName(request.ID, requester{}); err != nil {
		return nil, err
	}
	d, err := s.issuer.signingDomain(request.ID.TrustDomain(), plan.JWT)
	if err != nil {
		return nil, err
	}
	response, err := s.issuer.signJWT(d, request, through(r.GetCaller(), member))
	return response, signingError(err)
}

// callingMember returns the member that calls.
func callingMember(ctx context.Context) (string, error) {
	caller := access.CallerFrom(ctx)
	if member, ok := caller.MemberID(); ok {
		return member, nil
	}
	return "", status.Errorf(codes.PermissionDenied,
		"only members of this cluster can forward requests, and the caller is %s", caller)
}

func through(caller, member string) string { return caller + " through member " + member }

// signingDomain returns the state of a domain for which this member can sign now.
func (i *Issuer) signingDomain(td spiffeid.TrustDomain, kind plan.Kind) (*Domain, error) {
	if err := i.CanSign(); err != nil {
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	}
	if d := i.State().Domains[td]; d != nil && d.ready(kind, i.config.Now()) {
		return d, nil
	}
	return nil, status.Errorf(codes.FailedPrecondition, "member %s has no active %s authority of %s", i.config.Member,
		kind, td)
}
