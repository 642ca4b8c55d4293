package access

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Sight is which trust domains the caller of a call or stream sees. Callers of equal keys see the same. The zero value sees
// nothing.
type Sight struct {
	key  string
	sees func(spiffeid.TrustDomain) bool
}

// NewSight makes a sight. Equal keys have to stand for sights that see the same.
func NewSight(key string, sees func(spiffeid.TrustDomain) bool) Sight {
	return Sight{key: key, sees: sees}
}

// SightFrom returns the sight of the call that a context belongs to. What it sees follows from the grants that the call was
// allowed by; a stream whose rule is Scoped ends when they change.
func SightFrom(ctx context.Context) Sight {
	p, ok := ctx.Value(permitKey{}).(permit)
	if !ok {
		return Sight{}
	}
	c := p.call
	c.Rule.Reach = Bundles // foreign domains are nobody's to hide
	keep := shows(c, p.world)
	if keep == nil {
		return Sight{key: "everything", sees: func(spiffeid.TrustDomain) bool { return true }}
	}
	var domains []string
	for _, g := range c.Grants {
		if slices.Contains(c.Rule.Roles, g.Role) {
			domains = append(domains, g.TrustDomain.Name())
		}
	}
	slices.Sort(domains)
	return Sight{
		key:  fmt.Sprintf("in %s", strings.Join(slices.Compact(domains), " ")),
		sees: func(td spiffeid.TrustDomain) bool { return keep(td.Name()) },
	}
}

// Key is the same for callers that see the same.
func (s Sight) Key() string { return s.key }

// Sees says whether what is in a trust domain is shown to the caller: what is foreign always, what is hosted here if a
// grant covers it.
func (s Sight) Sees(td spiffeid.TrustDomain) bool { return s.sees != nil && s.sees(td) }
