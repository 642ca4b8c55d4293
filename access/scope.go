package access

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Scope is which trust domains the caller of a call or stream includes. Callers of equal keys see the same. The zero value includes
// nothing.
type Scope struct {
	key      string
	includes func(spiffeid.TrustDomain) bool
}

// NewScope makes a sight. Equal keys have to stand for sights that see the same.
func NewScope(key string, includes func(spiffeid.TrustDomain) bool) Scope {
	return Scope{key: key, includes: includes}
}

// ScopeFrom returns the sight of the call that a context belongs to. What it includes follows from the grants that the call was
// allowed by; a stream whose rule is Scoped ends when they change.
func ScopeFrom(ctx context.Context) Scope {
	p, ok := ctx.Value(permitKey{}).(permit)
	if !ok {
		return Scope{}
	}
	c := p.call
	c.Rule.Reach = Bundles // foreign domains are nobody's to hide
	keep := shows(c, p.world)
	if keep == nil {
		return Scope{key: "everything", includes: func(spiffeid.TrustDomain) bool { return true }}
	}
	var domains []string
	for _, g := range c.Grants {
		if slices.Contains(c.Rule.Roles, g.Role) {
			domains = append(domains, g.TrustDomain.Name())
		}
	}
	slices.Sort(domains)
	return Scope{
		key:      fmt.Sprintf("in %s", strings.Join(slices.Compact(domains), " ")),
		includes: func(td spiffeid.TrustDomain) bool { return keep(td.Name()) },
	}
}

// Key is the same for callers that see the same.
func (s Scope) Key() string { return s.key }

// Includes says whether what is in a trust domain is shown to the caller: what is foreign always, what is hosted here if a
// grant covers it.
func (s Scope) Includes(td spiffeid.TrustDomain) bool { return s.includes != nil && s.includes(td) }
