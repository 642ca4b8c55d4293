package issue

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
	"github.com/ententehq/entente/access/audit"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/authority/internal/request"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/svid"
	"github.com/ententehq/entente/internal/apierror"
)

// MaxBatch bounds a batch: with the largest possible certificates, response and bundle stay below the 4 MiB that gRPC
// clients accept. Larger batches would not be cheaper per SVID.
const MaxBatch = 100

// perBatch is the number of requests of one batch in progress at once. More than the number of cores would delay single
// requests; at least four, since a forwarded request mostly waits.
var perBatch = max(4, runtime.GOMAXPROCS(0))

// IssueX509SVIDs signs a batch of X509-SVIDs.
func (s *svidService) IssueX509SVIDs(
	ctx context.Context, r *ententev1.IssueX509SVIDsRequest,
) (*ententev1.IssueX509SVIDsResponse, error) {
	td, err := checkBatch(r.GetTrustDomain(), len(r.GetRequests()))
	if err != nil {
		return nil, err
	}
	response := &ententev1.IssueX509SVIDsResponse{Results: make([]*ententev1.X509SVIDResult, len(r.GetRequests()))}
	issued := make([]*ententev1.IssueX509SVIDResponse, len(r.GetRequests()))
	err = s.issuer.batch(ctx, len(issued), func(i int) error {
		one := r.GetRequests()[i]
		err := s.issuer.admit(ctx, plan.X509, td, one.GetSpiffeId(), one.GetDnsNames()...)
		if err == nil {
			issued[i], err = s.issuer.issueX509(ctx, one, access.CallerFrom(ctx).String(), requester{})
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
func (s *svidService) IssueJWTSVIDs(
	ctx context.Context, r *ententev1.IssueJWTSVIDsRequest,
) (*ententev1.IssueJWTSVIDsResponse, error) {
	td, err := checkBatch(r.GetTrustDomain(), len(r.GetRequests()))
	if err != nil {
		return nil, err
	}
	response := &ententev1.IssueJWTSVIDsResponse{Results: make([]*ententev1.JWTSVIDResult, len(r.GetRequests()))}
	err = s.issuer.batch(ctx, len(r.GetRequests()), func(i int) error {
		one := r.GetRequests()[i]
		var issued *ententev1.IssueJWTSVIDResponse
		err := s.issuer.admit(ctx, plan.JWT, td, one.GetSpiffeId())
		if err == nil {
			issued, err = s.issuer.issueJWT(ctx, one, access.CallerFrom(ctx).String())
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
	td, err := request.ParseDomain(name)
	if err != nil {
		return td, err
	}
	if requests < 1 || requests > MaxBatch {
		return td, apierror.Invalid(apierror.InField("requests",
			fmt.Errorf("the batch holds %d requests; send 1 to %d", requests, MaxBatch)))
	}
	return td, nil
}

// admit checks one request of a batch: the caller's rate, and whether its grant in the domain covers this ID. Single
// requests are checked by the same rules before they reach this package.
func (i *Issuer) admit(
	ctx context.Context, kind plan.Kind, td spiffeid.TrustDomain, spiffeID string, dnsNames ...string,
) error {
	if err := i.limiter.admit(access.CallerFrom(ctx), kind); err != nil {
		return err
	}
	id, err := svid.ParseWorkloadID(spiffeID)
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	if id.TrustDomain() != td {
		return status.Errorf(codes.InvalidArgument,
			"spiffe_id %s is not in %s, the trust domain of the batch; send one batch for each trust domain", id, td)
	}
	return access.Permits(ctx, id, dnsNames...)
}

// batch handles n requests, some at once, and writes one line to the audit log if some were denied. It fails only if
// the call was cancelled.
func (i *Issuer) batch(ctx context.Context, n int, one func(k int) error) error {
	errs := make([]error, n)
	var next atomic.Int64
	var group sync.WaitGroup
	for range min(perBatch, n) {
		group.Go(func() {
			for k := int(next.Add(1)) - 1; k < n && ctx.Err() == nil; k = int(next.Add(1)) - 1 {
				errs[k] = one(k)
			}
		})
	}
	group.Wait()
	if err := ctx.Err(); err != nil {
		return status.FromContextError(err).Err()
	}
	return i.auditDenied(ctx, errs)
}

// auditDenied records the denied requests of a batch. The caller's rate bounds the number of lines.
func (i *Issuer) auditDenied(ctx context.Context, errs []error) error {
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
	// A denial stands whether or not it can be recorded; the audit log reports its own failure.
	_ = i.config.Audit.Record(audit.Event{
		Caller: access.CallerFrom(ctx).String(), Action: "issue a batch of SVIDs", Result: audit.ResultDenied,
		Detail: fmt.Sprintf("%d of %d requests; the first: %s", denied, len(errs), first),
	})
	return nil
}

// failureOf returns the error with which a call for one request alone would have ended.
func failureOf(err error) *ententev1.IssueFailure {
	s := status.Convert(signingError(err))
	code := int32(s.Code()) //nolint:gosec // codes are small
	return &ententev1.IssueFailure{Code: code, Message: s.Message(), RetryDelay: retryDelay(s)}
}
