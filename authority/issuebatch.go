package authority

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ententehq/entente/access"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/svid"
)

// maxBatch bounds a batch: with the largest certificates there are, answer and bundle stay below the 4 MiB that gRPC
// clients take, and beyond it the cost of a call is no matter any more.
const maxBatch = 100

// perBatch is how many requests of one batch are worked on at once. More than there are cores would let a batch crowd
// out single requests; at least four, since one that is passed on to another member mostly waits.
var perBatch = max(4, runtime.GOMAXPROCS(0))

// IssueX509SVIDs signs a batch of X509-SVIDs.
func (s *svidService) IssueX509SVIDs(ctx context.Context, r *ententev1.IssueX509SVIDsRequest) (*ententev1.IssueX509SVIDsResponse, error) {
	td, err := checkBatch(r.GetTrustDomain(), len(r.GetRequests()))
	if err != nil {
		return nil, err
	}
	response := &ententev1.IssueX509SVIDsResponse{Results: make([]*ententev1.X509SVIDResult, len(r.GetRequests()))}
	issued := make([]*ententev1.IssueX509SVIDResponse, len(r.GetRequests()))
	err = s.m.batch(ctx, len(issued), func(i int) error {
		request := r.GetRequests()[i]
		err := s.m.admit(ctx, plan.X509, td, request.GetSpiffeId(), request.GetDnsNames()...)
		if err == nil {
			issued[i], err = s.m.issueX509(ctx, request, access.CallerFrom(ctx).String(), "")
		}
		response.Results[i] = &ententev1.X509SVIDResult{Result: &ententev1.X509SVIDResult_Svid{Svid: issued[i]}}
		if err != nil {
			response.Results[i].Result = &ententev1.X509SVIDResult_Failure{Failure: failureOf(err)}
		}
		return err
	})
	for _, verified := range issued {
		if verified != nil {
			response.Bundle, verified.Bundle = verified.GetBundle(), nil
		}
	}
	return response, err
}

// IssueJWTSVIDs signs a batch of JWT-SVIDs.
func (s *svidService) IssueJWTSVIDs(ctx context.Context, r *ententev1.IssueJWTSVIDsRequest) (*ententev1.IssueJWTSVIDsResponse, error) {
	td, err := checkBatch(r.GetTrustDomain(), len(r.GetRequests()))
	if err != nil {
		return nil, err
	}
	response := &ententev1.IssueJWTSVIDsResponse{Results: make([]*ententev1.JWTSVIDResult, len(r.GetRequests()))}
	err = s.m.batch(ctx, len(r.GetRequests()), func(i int) error {
		request := r.GetRequests()[i]
		var issued *ententev1.IssueJWTSVIDResponse
		err := s.m.admit(ctx, plan.JWT, td, request.GetSpiffeId())
		if err == nil {
			issued, err = s.m.issueJWT(ctx, request, access.CallerFrom(ctx).String())
		}
		response.Results[i] = &ententev1.JWTSVIDResult{Result: &ententev1.JWTSVIDResult_Svid{Svid: issued}}
		if err != nil {
			response.Results[i].Result = &ententev1.JWTSVIDResult_Failure{Failure: failureOf(err)}
		}
		return err
	})
	return response, err
}

func checkBatch(name string, requests int) (spiffeid.TrustDomain, error) {
	td, err := parseDomainName(name)
	if err != nil {
		return td, err
	}
	if requests < 1 || requests > maxBatch {
		return td, status.Errorf(codes.InvalidArgument, "the batch holds %d requests; send 1 to %d", requests, maxBatch)
	}
	return td, nil
}

// admit decides on one request of a batch: the caller's rate, and whether what lets it issue in the domain reaches this
// ID. Single requests are decided on before they come to this package, by the same rules.
func (m *Manager) admit(ctx context.Context, kind plan.Kind, td spiffeid.TrustDomain, spiffeID string, dnsNames ...string) error {
	if err := m.limiter.take(access.CallerFrom(ctx), kind); err != nil {
		return err
	}
	id, err := svid.ParseWorkloadID(spiffeID)
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	if id.TrustDomain() != td {
		return status.Errorf(codes.InvalidArgument, "spiffe_id %s is not in %s, for which the batch is; send one batch a trust domain", id, td)
	}
	return access.Permits(ctx, id, dnsNames...)
}

// batch works on n requests, some at once, and puts one line into the audit log if some were outside of what the caller
// may have. It fails only when the caller is gone.
func (m *Manager) batch(ctx context.Context, n int, one func(i int) error) error {
	errs := make([]error, n)
	var next atomic.Int64
	var group sync.WaitGroup
	for range min(perBatch, n) {
		group.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				errs[i] = one(i)
			}
		})
	}
	group.Wait()
	if err := ctx.Err(); err != nil {
		return status.FromContextError(err).Err()
	}
	return m.auditDenied(ctx, errs)
}

// auditDenied records what of a batch the caller may not have. The caller's rate bounds how often.
func (m *Manager) auditDenied(ctx context.Context, errs []error) error {
	denied, first := 0, ""
	for _, err := range errs {
		if status.Code(err) == codes.PermissionDenied {
			if denied++; denied == 1 {
				first = status.Convert(err).Message()
			}
		}
	}
	if denied == 0 {
		return nil
	}
	// A refusal stands whether it can be recorded or not; the log itself says why it could not.
	_ = m.config.Audit.Record(access.Event{
		Caller: access.CallerFrom(ctx).String(), Action: "issue a batch of SVIDs", Result: access.ResultDenied,
		Detail: fmt.Sprintf("%d of %d requests; the first: %s", denied, len(errs), first),
	})
	return nil
}

// failureOf is what the call for one request alone would have ended with.
func failureOf(err error) *ententev1.IssueFailure {
	s := status.Convert(signingError(err))
	return &ententev1.IssueFailure{Code: int32(s.Code()), Message: s.Message(), RetryDelay: retryDelay(s)} //nolint:gosec // codes are small
}
