package routing

import (
	"fmt"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
)

// Plan returns the plan for callers in a locality, in the revision that r reads. It is what a hint and xDS are made of.
func (m *Manager) Plan(r raftstore.Reader, service string, caller Locality) (Plan, error) {
	instances, err := m.catalog.instances(r, service)
	if err != nil {
		return Plan{}, err
	}
	states := make(map[spiffeid.TrustDomain]TrustState)
	endpoints := make([]Endpoint, len(instances))
	for i, instance := range instances {
		td := instance.ID.TrustDomain()
		state, known := states[td]
		if !known {
			if state, err = m.trust.State(r, td); err != nil {
				return Plan{}, fmt.Errorf("look up the trust in %s: %w", td.Name(), err)
			}
			states[td] = state
		}
		endpoints[i] = instance.Endpoint
		endpoints[i].Trust = state
	}
	return m.policy.Plan(caller, endpoints), nil
}

// hint returns the message of the API for a plan: what may be called, in order, and what not, and why.
func hint(service string, caller Locality, revision raftstore.Revision, plan Plan) *ententev1.Hint {
	h := &ententev1.Hint{Service: service, Locality: caller.Proto(), Revision: uint64(revision), Reason: plan.Reason}
	for i, p := range plan.Priorities {
		out := &ententev1.HintPriority{Priority: uint32(i), Load: p.Load, DegradedLoad: p.DegradedLoad, Panic: p.Panic}
		for _, l := range p.Localities {
			share := &ententev1.HintLocality{Locality: l.Locality.Proto(), Share: l.Share, DegradedShare: l.DegradedShare}
			for _, e := range l.Endpoints {
				if !p.Offered(e) {
					h.Excluded = append(h.Excluded, exclusion(e, "it is "+e.Health.String()))
					continue
				}
				share.Endpoints = append(share.Endpoints, &ententev1.HintEndpoint{
					Address: e.Address.String(), SpiffeId: e.ID.String(), Health: ententev1.Health(e.Health),
					Weight: e.Weight, Freshness: e.Trust.Freshness(),
				})
			}
			if len(share.Endpoints) > 0 {
				out.Localities = append(out.Localities, share)
			}
		}
		h.Priorities = append(h.Priorities, out)
	}
	for _, x := range plan.Excluded {
		h.Excluded = append(h.Excluded, exclusion(x.Endpoint, x.Reason))
	}
	return h
}

func exclusion(e Endpoint, reason string) *ententev1.HintExclusion {
	return &ententev1.HintExclusion{Address: e.Address.String(), SpiffeId: e.ID.String(), Reason: reason}
}
