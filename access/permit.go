package access

import (
	"context"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// permit is what allowed the call that a context belongs to.
type permit struct {
	call  Call
	world World
}

type permitKey struct{}

func withPermit(ctx context.Context, p permit) context.Context {
	return context.WithValue(WithCaller(ctx, p.call.Caller), permitKey{}, p)
}

// Permits returns nil if what allowed the present call also reaches the SPIFFE ID, with these DNS names if any, and else a [Refusal], which the
// room returns as it is. Rooms ask it where a call touches something whose ID the request does not show, such as the
// instance that is replaced or removed; within the transaction that does so. The admin socket may touch everything;
// a context without a caller nothing.
func Permits(ctx context.Context, id spiffeid.ID, dnsNames ...string) error {
	p, ok := ctx.Value(permitKey{}).(permit)
	if !ok {
		p = permit{call: Call{Method: "this", Caller: CallerFrom(ctx), Rule: Rule{Roles: admins, Reach: Domain}}}
	}
	c := p.call
	c.Target = Target{SPIFFEID: id.String(), DNSNames: dnsNames}
	c.Rule.Issues = c.Rule.Issues || c.Rule.IssuesEach
	return Decide(c, p.world)
}
