package access

import (
	"context"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Scope is the set of trust domains visible to a caller. The zero value is empty.
type Scope struct {
	key      string
	includes func(spiffeid.TrustDomain) bool
}

// everything is the key of the scope that includes every trust domain.
const everything = "everything"

// NewScope returns a scope with a key. Scopes with equal keys must include the same trust domains.
func NewScope(key string, includes func(spiffeid.TrustDomain) bool) Scope {
	return Scope{key: key, includes: includes}
}

// ScopeFrom returns the scope of the call that a context belongs to. It includes every foreign domain, and the hosted
// domains within the grants that allowed the call. A stream whose rule is Scoped ends when these grants change.
func ScopeFrom(ctx context.Context) Scope {
	p, ok := ctx.Value(permitKey{}).(permit)
	if !ok && CallerFrom(ctx).Kind() != Socket {
		return Scope{}
	}
	if !ok {
		p.call.Caller = CallerFrom(ctx)
	}
	c := p.call
	c.Rule.Reach = Bundles // every caller sees foreign domains
	keep := visible(c, p.world)
	if keep == nil {
		return NewScope(everything, func(spiffeid.TrustDomain) bool { return true })
	}
	var domains []string
	for _, g := range c.Grants {
		if slices.Contains(c.Rule.Roles, g.Role) {
			domains = append(domains, g.TrustDomain.Name())
		}
	}
	slices.Sort(domains)
	return NewScope(
		"in "+strings.Join(slices.Compact(domains), " "),
		func(td spiffeid.TrustDomain) bool { return keep(td.Name()) },
	)
}

// Key identifies the scope. Callers with equal keys see the same trust domains.
func (s Scope) Key() string { return s.key }

// Everything reports whether the caller may see what belongs to no trust domain that it has a grant in.
func (s Scope) Everything() bool { return s.key == everything }

// Includes reports whether a trust domain is in the scope.
func (s Scope) Includes(td spiffeid.TrustDomain) bool { return s.includes != nil && s.includes(td) }
