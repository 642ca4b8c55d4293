package access

import (
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/access/grant"
	"github.com/ententehq/entente/raftstore"
)

// countingGrants reads a caller's grants from this member's state. A revocation on another member takes effect here
// when this member has applied it. If the caller's domain is known only by attestation, privileged grants are left out,
// and attested reports whether there were any.
func (g *Guard) countingGrants(c Caller) (of []grant.Grant, attested bool, err error) {
	id, ok := c.SPIFFEID()
	if !ok {
		return nil, false, nil
	}
	view := g.cfg.Store.View()
	all, err := g.grants.Of(view, id)
	if err != nil {
		return nil, false, err
	}
	return g.cfg.counting(view, id, all)
}

// counting returns those of the grants of an ID that count in the state of a reader: see [Guard.countingGrants].
func (c GuardConfig) counting(
	r raftstore.Reader, id spiffeid.ID, all []grant.Grant,
) (of []grant.Grant, attested bool, err error) {
	if len(all) == 0 || c.Direct == nil {
		return all, false, nil
	}
	direct, err := c.Direct(r, id.TrustDomain())
	if err != nil || direct {
		return all, false, err
	}
	of = slices.DeleteFunc(slices.Clone(all), func(g grant.Grant) bool { return grant.Privileged.Has(g.Role) })
	return of, len(of) < len(all), nil
}

// isAgent reports whether the agent with an ID is attested with a key and not banned, by this member's state.
func (c GuardConfig) isAgent(id spiffeid.ID, key [32]byte) bool {
	if c.Agent == nil {
		return false
	}
	attested, err := c.Agent(c.Store.View(), id, key)
	if err != nil {
		c.Logger.Error("cannot read whether an agent is attested; its calls are refused", "agent", id, "error", err)
	}
	return err == nil && attested
}

// HasGrant reports whether a caller has a role that counts, or is an agent that is attested and not banned, by this
// member's state. What cannot be read does not count.
func (g *Guard) HasGrant(c Caller) bool {
	world := g.world()
	if hasAgentID(c, world) {
		return isAgent(c, world)
	}
	counting, _, err := g.countingGrants(c)
	return err == nil && len(counting) > 0
}

// IsPeerMember reports whether a caller is a member of another cluster.
func (g *Guard) IsPeerMember(c Caller) bool { return isPeerMember(c, g.world()) }
