package routing

import (
	"context"
	"maps"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/routing/plan"
)

// maxSimulated bounds the localities whose callers are followed at once, each of which costs a plan.
const maxSimulated = 256

// SimulateHint answers for an imagined outage. It changes nothing, and nothing that it computes is kept.
func (s *Server) SimulateHint(ctx context.Context, r *ententev1.SimulateHintRequest) (*ententev1.SimulateHintResponse, error) {
	suppositions, err := plan.ParseScenario(r.GetSuppose())
	if err != nil {
		return nil, invalid(err)
	}
	if err := plan.CheckServiceName(r.GetService()); err != nil {
		return nil, invalid(err)
	}
	var caller plan.Locality
	if r.GetLocality() != nil || !r.GetAllCallers() {
		if caller, err = plan.LocalityFromProto(r.GetLocality()); err != nil {
			return nil, invalid(err)
		}
	}
	view, err := s.read(ctx, r.GetRead(), false)
	if err != nil {
		return nil, err
	}
	now, err := s.m.scene(view, r.GetService(), s.m.sight(ctx).Includes)
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	present, policy := now.endpoints(), now.policy
	imagined, unmatched := plan.ApplyScenario(present, suppositions)
	answer := &ententev1.SimulateHintResponse{Revision: uint64(view.Revision())}
	for _, u := range unmatched {
		answer.Unmatched = append(answer.Unmatched, u.String())
	}
	if r.GetLocality() != nil {
		answer.Hint = policy.Plan(caller, imagined).Hint(r.GetService(), caller, uint64(view.Revision()))
	}
	if !r.GetAllCallers() {
		return answer, nil
	}
	places := make(map[plan.Locality]bool)
	for _, e := range present {
		places[e.Locality] = true
	}
	if len(places) > maxSimulated {
		return nil, status.Errorf(codes.ResourceExhausted, "service %s is in %d localities, and the callers of %d can be followed at once; ask for one locality", r.GetService(), len(places), maxSimulated)
	}
	before := policy.DistributeLoad(present)
	if err := ctx.Err(); err != nil {
		return nil, raftstore.StatusError(err)
	}
	then := policy.DistributeLoad(imagined)
	for _, region := range slices.Sorted(maps.Keys(before.Regions)) {
		answer.Regions = append(answer.Regions, &ententev1.RegionLoad{
			Region: region, Now: before.Regions[region], Then: then.Regions[region],
			AvailableNow: before.Available[region], AvailableThen: then.Available[region],
		})
	}
	answer.NowhereNow, answer.NowhereThen = before.Nowhere, then.Nowhere
	return answer, nil
}
