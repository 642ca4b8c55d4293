package routing

import (
	"context"
	"maps"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ententehq/entente/access"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/internal/apierror"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/routing/plan"
	"github.com/ententehq/entente/routing/registry"
)

// maxSimulated bounds the localities whose callers are simulated at once. Each of them costs a plan.
const maxSimulated = 256

// whatIfServer answers what-if questions. It changes nothing and caches nothing of what it computes.
type whatIfServer struct {
	store   *raftstore.Store
	planner *Planner
	scope   func(context.Context) access.Scope
}

// SimulateHint answers for an assumed outage.
func (s *whatIfServer) SimulateHint(
	ctx context.Context, r *ententev1.SimulateHintRequest,
) (*ententev1.SimulateHintResponse, error) {
	scenario, err := plan.ParseScenario(r.GetScenario())
	if err != nil {
		return nil, invalid(apierror.InField("scenario", err))
	}
	if err := plan.CheckServiceName(r.GetService()); err != nil {
		return nil, invalid(apierror.InField("service", err))
	}
	var caller plan.Locality
	if r.GetLocality() != nil || !r.GetAllCallers() {
		if caller, err = plan.LocalityFromProto(r.GetLocality()); err != nil {
			return nil, invalid(apierror.InField("locality", err))
		}
	}
	view, err := registry.Read(ctx, s.store, r.GetRead(), false)
	if err != nil {
		return nil, err
	}
	snapshot, err := s.planner.snapshot(view, r.GetService(), s.scope(ctx).Includes)
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	present, policy := snapshot.endpoints(), snapshot.policy
	assumed, unmatched := scenario.Apply(present)
	response := &ententev1.SimulateHintResponse{Revision: uint64(view.Revision())}
	for _, u := range unmatched {
		response.Unmatched = append(response.Unmatched, u.String())
	}
	if r.GetLocality() != nil {
		response.Hint = policy.Plan(caller, assumed).Hint(r.GetService(), caller, uint64(view.Revision()))
	}
	if !r.GetAllCallers() {
		return response, nil
	}
	localities := make(map[plan.Locality]bool)
	for _, e := range present {
		localities[e.Locality] = true
	}
	if len(localities) > maxSimulated {
		return nil, status.Errorf(codes.ResourceExhausted,
			"service %s is in %d localities, and the callers of %d can be simulated at once; name one locality",
			r.GetService(), len(localities), maxSimulated)
	}
	now := policy.DistributeLoad(present)
	if err := ctx.Err(); err != nil {
		return nil, raftstore.StatusError(err)
	}
	then := policy.DistributeLoad(assumed)
	for _, region := range slices.Sorted(maps.Keys(now.Regions)) {
		response.Regions = append(response.Regions, &ententev1.RegionLoad{
			Region: region, Now: now.Regions[region], Then: then.Regions[region],
			AvailableNow: now.Available[region], AvailableThen: then.Available[region],
		})
	}
	response.UnservedNow, response.UnservedThen = now.Unserved, then.Unserved
	return response, nil
}
