package access

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/ententehq/entente/access/grant"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
)

// warnings returns what an administrator should know of a new grant: which services get their first owner, until when
// SVIDs live that were issued before the grant, and who could have had them issued. Which SVIDs were issued is in the
// audit logs of the members alone.
func (g *Guard) warnings(r raftstore.Reader, given grant.Grant) ([]string, error) {
	all, err := firstOwned(r, given)
	if err != nil {
		return nil, err
	}
	live, err := g.liveSVIDs(r, given)
	return append(all, live...), err
}

// firstOwned warns of the services without an owner that a grant names: their present instances can stop to count.
func firstOwned(r raftstore.Reader, given grant.Grant) (all []string, err error) {
	for _, service := range given.Services.List() {
		owners, err := grant.OwnersOf(r, service)
		if err != nil {
			return nil, err
		}
		if owners.Open() {
			all = append(all, fmt.Sprintf("service %s had no owner: from now on its registered instances count only "+
				"under IDs that this grant covers; 'entente service show %s' lists those that count", service, service))
		}
	}
	return all, nil
}

// lastOwned warns of the services whose last owner a revocation has removed.
func lastOwned(r raftstore.Reader, revoked grant.Grant) (all []string, err error) {
	for _, service := range revoked.Services.List() {
		owners, err := grant.OwnersOf(r, service)
		if err != nil {
			return nil, err
		}
		if owners.Reserved {
			all = append(all, fmt.Sprintf("service %s has no owner any more: none of its registered instances counts, "+
				"and none can be registered, until another caller is granted it or 'entente access release %s' opens "+
				"the name to every caller with the role discovery", service, service))
		}
	}
	return all, nil
}

// liveSVIDs warns of the SVIDs that were issued before a grant.
func (g *Guard) liveSVIDs(r raftstore.Reader, given grant.Grant) ([]string, error) {
	if g.cfg.LongestSVID == nil {
		return nil, nil
	}
	id := given.Caller
	hosted, err := g.cfg.Hosted(r, id.TrustDomain())
	if err != nil {
		return nil, err
	}
	if !hosted {
		return []string{fmt.Sprintf("another cluster issues SVIDs of %s: every holder of a valid one, and every "+
			"caller that can have one issued in %s, has the role %s",
			id, id.TrustDomain().Name(), grant.RoleName(given.Role))}, nil
	}
	life, err := g.cfg.LongestSVID(r, id.TrustDomain())
	if err != nil {
		return nil, err
	}
	now := g.cfg.Now()
	able, err := grant.CouldIssue(r, id, now.Add(-life))
	if err != nil {
		return nil, err
	}
	return []string{fmt.Sprintf("an SVID of %s that was issued before this grant has the role %s too, and can be "+
		"valid until %s; besides administrators, these could have had it issued: %s", id, grant.RoleName(given.Role),
		now.Add(life).UTC().Format(time.RFC3339), cmp.Or(strings.Join(able, ", "), "none"))}, nil
}

// releaseEffects returns what the release of the reserved name of a service does.
func releaseEffects(service string) []*ententev1.Effect {
	return []*ententev1.Effect{{
		Kind: "service", Subject: service,
		Detail: "becomes open: every caller with the role discovery can register instances of it, and instances that " +
			"did not count before count",
	}}
}

// revokeEffects returns what the revocation of a grant does, with its warnings.
func revokeEffects(revoked grant.Grant, warnings []string) []*ententev1.Effect {
	effects := []*ententev1.Effect{{
		Kind: "grant", Subject: revoked.Caller.String(),
		Detail: "loses the role " + grant.Describe([]grant.Grant{revoked}) + ": calls that only this grant allows " +
			"are refused, and its open streams end",
	}}
	for _, warning := range warnings {
		effects = append(effects, &ententev1.Effect{Kind: "service", Subject: "without an owner", Detail: warning})
	}
	return effects
}
