package access

import (
	"context"
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/access/grant"
	"github.com/ententehq/entente/raftstore"
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

// permitFor returns what allowed the current call, for another SPIFFE ID.
func permitFor(ctx context.Context, id spiffeid.ID, dnsNames ...string) permit {
	p, ok := ctx.Value(permitKey{}).(permit)
	if !ok {
		p = permit{call: Call{Method: "this", Caller: CallerFrom(ctx), Rule: Rule{Roles: admins, Reach: Domain}}}
	}
	p.call.Target = Target{SPIFFEID: id.String(), DNSNames: dnsNames}
	p.call.Rule.Issues = p.call.Rule.Issues || p.call.Rule.IssuesEach
	return p
}

// Permits returns nil if what allowed the current call also covers the SPIFFE ID and the DNS names, and otherwise a
// [Refusal], which the room returns unchanged. A room calls it where a call affects an ID that the request does not
// show, within the transaction that does so. The admin socket may affect everything, a context without a caller
// nothing.
func Permits(ctx context.Context, id spiffeid.ID, dnsNames ...string) error {
	p := permitFor(ctx, id, dnsNames...)
	return Decide(p.call, p.world)
}

// InstanceChange is what a call does to an instance of a service.
type InstanceChange bool

// The values of [InstanceChange].
const (
	RegistersInstance InstanceChange = false
	RemovesInstance   InstanceChange = true
)

// PermitsInstance is [Permits] for an instance of a service under a SPIFFE ID. It also applies the rule of
// [DecideInstance], with the owners of the service in the state that r reads. The refusal to remove an instance does
// not name an ID that the caller may not see.
func PermitsInstance(
	ctx context.Context, r raftstore.Reader, change InstanceChange, service string, id spiffeid.ID,
) error {
	owners, err := grant.OwnersOf(r, service)
	if err != nil {
		return err
	}
	p := permitFor(ctx, id)
	err = DecideInstance(p.call, p.world, change, owners, id)
	if err != nil && change == RemovesInstance && !ScopeFrom(ctx).Includes(id.TrustDomain()) {
		return refuse(ReasonOwner, "%s may not replace or remove an instance of %s: it has an ID in a trust "+
			"domain that the caller does not see", p.call.Caller, service)
	}
	return err
}

// DecideInstance returns nil if the caller may register, change or remove an instance of a service under a SPIFFE ID,
// and otherwise a [Refusal].
//
// Besides what [Decide] requires: instances of a service with owners are registered under IDs of the owners' grants
// alone, by the owner whose grant covers the ID, by operators and by administrators. No instance of a service whose
// last owner has lost its grant is registered. A grant that names services is for these alone. An instance that was
// registered under another ID before the service had an owner can be removed by a caller whose grant covers that ID,
// and by every owner.
func DecideInstance(c Call, w World, change InstanceChange, owners grant.Owners, id spiffeid.ID) error {
	caller, _ := c.Caller.SPIFFEID()
	owns := func(g grant.Grant) bool { return g.Caller == caller }
	disowned := change == RemovesInstance && !owners.Cover(id)
	if disowned && slices.ContainsFunc(owners.Grants, owns) {
		return nil
	}
	if err := Decide(c, w); err != nil {
		return err
	}
	if c.Caller.Kind() == Socket || slices.ContainsFunc(c.Grants, func(g grant.Grant) bool {
		return slices.Contains(operators, g.Role) && g.Covers(id.TrustDomain())
	}) {
		if change == RemovesInstance || owners.Cover(id) {
			return nil
		}
		why := "the service has owners, and its instances count only under IDs of their grants"
		if owners.Reserved {
			why = reserved
		}
		return c.refuseInstance(change, owners.Service, id, why)
	}
	if slices.ContainsFunc(owners.Grants, func(g grant.Grant) bool { return owns(g) && g.CoversID(id) }) {
		return nil
	}
	if owners.Reserved && change == RegistersInstance {
		return c.refuseInstance(change, owners.Service, id, reserved)
	}
	if len(owners.Grants) > 0 && !disowned {
		return c.refuseInstance(change, owners.Service, id,
			"the service has owners, and the caller is none for that ID")
	}
	if slices.ContainsFunc(c.Grants, func(g grant.Grant) bool {
		return g.Role == grant.Discovery && g.Services == "" && g.CoversID(id)
	}) {
		return nil
	}
	return c.refuseInstance(change, owners.Service, id, "the caller has the role discovery for other services alone")
}

// reserved explains the refusal of an instance of a service whose last owner is gone.
const reserved = "the service had owners, and its name is reserved until it has another or is released " +
	"('entente access release')"

func (c Call) refuseInstance(change InstanceChange, service string, id spiffeid.ID, why string) error {
	lacking := grant.Grant{
		Role: grant.Discovery, Caller: id, TrustDomain: id.TrustDomain(), PathPrefix: id.Path(),
		Services: grant.ServiceNames(service),
	}
	if caller, ok := c.Caller.SPIFFEID(); ok {
		lacking.Caller = caller
	}
	verb := "register"
	if change == RemovesInstance {
		verb = "remove"
	}
	return refuse(ReasonOwner, "%s may not %s instances of %s under %s: %s. To allow it, an administrator runs: %s",
		c.Caller, verb, service, id, why, lacking.Command())
}

// PermitsVerification returns nil if the caller of the current call may decide by which keys the IDs of a foreign
// trust domain are verified, and otherwise a [Refusal]: such a caller can issue itself each of these IDs. If one
// of them has the role admin or issuer, which an operator does not have, it is for administrators of every domain.
func PermitsVerification(ctx context.Context, r raftstore.Reader, td spiffeid.TrustDomain) error {
	p, ok := ctx.Value(permitKey{}).(permit)
	if ok && (p.call.Caller.Kind() == Socket || slices.ContainsFunc(p.call.Grants, func(g grant.Grant) bool {
		return g.Role == grant.Admin && g.Everywhere()
	})) {
		return nil
	}
	held, err := grant.In(r, td)
	if err != nil {
		return err
	}
	for _, g := range held {
		if g.Role == grant.Admin || g.Role == grant.Issuer {
			return refuse(ReasonPrivileged, "%s may not decide how IDs of %s are verified: %s has the role %s. An "+
				"administrator of every hosted domain can, or revokes that role first", CallerFrom(ctx), td.Name(),
				g.Caller, grant.RoleName(g.Role))
		}
	}
	return nil
}
