package access

import (
	"context"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// permit holds what allowed the call that a context belongs to.
type permit struct {
	call  Call
	world World
}

type permitKey struct{}

func withPermit(ctx context.Context, p permit) context.Context {
	return context.WithValue(WithCaller(ctx, p.call.Caller), permitKey{}, p)
}

// Permits returns nil if what allowed the current call also covers the SPIFFE ID and the DNS names, and otherwise a
// [Refusal], which the room returns unchanged. A room calls it where a call affects an ID that the request does not
// show, such as that of an instance to be replaced, within the transaction that does so. The admin socket may affect
// everything, a context without a caller nothing.
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
