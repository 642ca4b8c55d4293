package authority

import (
	"context"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ententehq/entente/access"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/svid"
)

// svidService serves entente.v1.SVIDService.
type svidService struct {
	ententev1.UnimplementedSVIDServiceServer
	m *Manager
}

// SVIDService returns the service that issues identities. Whether a caller may have the one that it asks for is decided
// before it is called; here nobody gets one below /entente/.
func (m *Manager) SVIDService() ententev1.SVIDServiceServer { return &svidService{m: m} }

// IssueX509SVID signs an X509-SVID, here or on a member that can.
func (s *svidService) IssueX509SVID(ctx context.Context, r *ententev1.IssueX509SVIDRequest) (*ententev1.IssueX509SVIDResponse, error) {
	if err := s.m.limiter.take(access.CallerFrom(ctx), plan.X509); err != nil {
		return nil, err
	}
	response, err := s.m.issueX509(ctx, r, access.CallerFrom(ctx).String(), "")
	return response, signingError(err)
}

// IssueJWTSVID signs a JWT-SVID, here or on a member that can.
func (s *svidService) IssueJWTSVID(ctx context.Context, r *ententev1.IssueJWTSVIDRequest) (*ententev1.IssueJWTSVIDResponse, error) {
	if err := s.m.limiter.take(access.CallerFrom(ctx), plan.JWT); err != nil {
		return nil, err
	}
	response, err := s.m.issueJWT(ctx, r, access.CallerFrom(ctx).String())
	return response, signingError(err)
}

// signingError gives a status to what had none: the audit log or the key failed on this member, and another may do better.
func signingError(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	return status.Error(codes.Unavailable, err.Error())
}

// signingService serves entente.v1.SigningService, to fellow members alone.
type signingService struct {
	ententev1.UnimplementedSigningServiceServer
	m *Manager
}

// SigningService returns the service that signs for members that cannot. It never passes a request on: that would go
// in circles.
func (m *Manager) SigningService() ententev1.SigningServiceServer { return &signingService{m: m} }

// SignX509SVID signs with an active authority of this member.
func (s *signingService) SignX509SVID(ctx context.Context, r *ententev1.SignX509SVIDRequest) (*ententev1.IssueX509SVIDResponse, error) {
	member, err := fellow(ctx)
	if err != nil {
		return nil, err
	}
	request, err := svid.ParseX509Request(r.GetRequest())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	forItself := ""
	if r.GetForMember() {
		forItself = member
	}
	if err := s.m.allowed(request.ID, forItself); err != nil {
		return nil, err
	}
	d, err := s.m.here(request.ID.TrustDomain(), plan.X509)
	if err != nil {
		return nil, err
	}
	ttl, err := svid.Lifetime(request.TTL, d.settings.X509SVIDTTL)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	response, err := s.m.signX509(d.signers[plan.X509], d, request, ttl, through(r.GetCaller(), member))
	return response, signingError(err)
}

// SignJWTSVID signs with an active authority of this member.
func (s *signingService) SignJWTSVID(ctx context.Context, r *ententev1.SignJWTSVIDRequest) (*ententev1.IssueJWTSVIDResponse, error) {
	member, err := fellow(ctx)
	if err != nil {
		return nil, err
	}
	request, err := svid.ParseJWTRequest(r.GetRequest())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if err := s.m.allowed(request.ID, ""); err != nil {
		return nil, err
	}
	d, err := s.m.here(request.ID.TrustDomain(), plan.JWT)
	if err != nil {
		return nil, err
	}
	ttl, err := svid.Lifetime(request.TTL, d.settings.JWTSVIDTTL)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	response, err := s.m.signJWT(d.signers[plan.JWT], d.issuer, request, ttl, through(r.GetCaller(), member))
	return response, signingError(err)
}

// fellow is the member that calls.
func fellow(ctx context.Context) (string, error) {
	caller := access.CallerFrom(ctx)
	if member, ok := caller.MemberID(); ok {
		return member, nil
	}
	return "", status.Errorf(codes.PermissionDenied, "only members of this cluster ask each other to sign, and the caller is %s", caller)
}

func through(caller, member string) string { return caller + " through member " + member }

// here returns the state of a domain that this member can sign for now.
func (m *Manager) here(td spiffeid.TrustDomain, kind plan.Kind) (*domainState, error) {
	if err := m.canSign(); err != nil {
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	}
	if d := m.signing.Load().domains[td]; d != nil && d.ready(kind, m.config.Now()) {
		return d, nil
	}
	return nil, status.Errorf(codes.FailedPrecondition, "member %s has no active %s authority of %s", m.config.Member, kind, td)
}
