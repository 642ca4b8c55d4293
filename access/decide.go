package access

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/access/grant"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/internal/apierror"
	"github.com/ententehq/entente/internal/dnsname"
)

// World is the state of the cluster that a decision depends on.
type World struct {
	// Home is the home trust domain.
	Home spiffeid.TrustDomain
	// Hosted reports whether the cluster is the authority for a trust domain.
	Hosted func(spiffeid.TrustDomain) bool
	// Agent reports whether the agent with an ID is attested with a key and not banned. If nil, there is none.
	Agent func(id spiffeid.ID, key [32]byte) bool
	// GrantsOf returns the grants of a SPIFFE ID. If nil, none has any.
	GrantsOf func(spiffeid.ID) ([]grant.Grant, error)
}

// Call is a call to decide on. Grants are the grants of the caller.
type Call struct {
	Method string // full gRPC method name
	Rule   Rule
	Caller Caller
	Grants []grant.Grant
	Target Target
	// Attested is set if the caller has grants that do not count, because its trust domain is known only by the
	// attestation of a hub.
	Attested bool
}

// Decide returns nil if the caller may make the call, and otherwise a [Refusal].
func Decide(c Call, w World) error {
	switch c.Caller.Kind() {
	case Socket, SVID:
	case Member:
		return refuse(ReasonMember, "%s may not call %s with its identity key: the services for members are served "+
			"under entente-member/1", c.Caller, shortMethod(c.Method))
	default:
		return refuse(ReasonAnonymous, "%s requires an authenticated caller: present an X509-SVID, or use the admin "+
			"socket", shortMethod(c.Method))
	}
	if hasAgentID(c.Caller, w) && !isAgent(c.Caller, w) {
		return refuse(ReasonNoGrant, "%s may not call %s: no agent is attested under this name with the key of that "+
			"X509-SVID, or it is banned; 'entente agent list' shows the agents", c.Caller, shortMethod(c.Method))
	}
	s, err := requirementOf(c.Rule, c.Target, w)
	if err != nil {
		return apierror.InField(apierror.FieldOf(err), &Refusal{ReasonMalformed, err.Error()})
	}
	if c.Rule.Issues && grant.HasPathPrefix(s.id.Path(), grant.ReservedPath) {
		return refuse(ReasonReserved, "%s is never issued through the API: only the server itself issues IDs below "+
			"%s/; choose another path", s.id, grant.ReservedPath)
	}
	if c.Caller.Kind() == Socket || c.Rule.PeerMembers && isPeerMember(c.Caller, w) ||
		c.Rule.Agents && isAgent(c.Caller, w) {
		return nil
	}
	return c.decide(s, w)
}

// isPeerMember reports whether the caller is a member of another cluster, by an ID that only the authority of that
// cluster's home domain can issue.
func isPeerMember(c Caller, w World) bool {
	id, ok := c.SPIFFEID()
	if !ok || w.hosts(id.TrustDomain()) {
		return false
	}
	name, ok := strings.CutPrefix(id.Path(), grant.MemberPath)
	return ok && name != "" && !strings.Contains(name, "/")
}

// hasAgentID reports whether the caller has the ID of an agent of this cluster.
func hasAgentID(c Caller, w World) bool {
	id, ok := c.SPIFFEID()
	return ok && id.TrustDomain() == w.Home && strings.HasPrefix(id.Path(), grant.AgentPath)
}

// isAgent reports whether the caller is an agent that is attested, with the key of its SVID, and not banned.
func isAgent(c Caller, w World) bool {
	return hasAgentID(c, w) && w.Agent != nil && w.Agent(c.id, c.key)
}

// decide returns nil if a grant of the caller meets the requirement, and otherwise a [Refusal].
func (c Call) decide(s requirement, w World) error {
	above, err := c.above(s, w)
	if err != nil {
		return &Refusal{ReasonPrivileged, err.Error()}
	}
	reason := ReasonNoGrant
	var lacking grant.Grant
	for _, g := range c.Grants {
		switch {
		case !slices.Contains(c.Rule.Roles, g.Role):
			reason = later(reason, ReasonRole)
		case !s.domainsWithin(c.Grants, c.Rule.Roles):
			reason = later(reason, ReasonDomain)
		case !s.id.IsZero() && !g.CoversID(s.id):
			reason = later(reason, ReasonPath)
			if !g.Covers(s.id.TrustDomain()) {
				reason = later(reason, ReasonDomain)
			}
		case !g.CoversDNS(c.Target.DNSNames):
			reason = later(reason, ReasonDNS)
		case above&^g.MayIssue != 0:
			reason, lacking = later(reason, ReasonPrivileged), g
		default:
			return nil
		}
	}
	if reason == ReasonPrivileged {
		lacking.Role, lacking.MayIssue = grant.Issuer, lacking.MayIssue|above
		return refuse(reason, "%s may not issue %s: SVIDs of that ID have the role %s. To allow it, an administrator "+
			"runs: %s", c.Caller, s.id, above, lacking.Command())
	}
	if id, _ := c.Caller.SPIFFEID(); c.Attested {
		return refuse(ReasonAttested, "%s may not call %s: %s is known only by the attestation of a hub, and then the "+
			"roles %s do not count. To let them count, an operator creates a relationship with %s", c.Caller,
			shortMethod(c.Method), id.TrustDomain().Name(), grant.RoleNames(grant.Privileged.List()),
			id.TrustDomain().Name())
	}
	return &Refusal{reason, c.missing(s, w)}
}

// above returns the roles that the ID to be issued has, and that the caller could not grant. They are empty if the
// call issues nothing, or the caller's own ID.
func (c Call) above(s requirement, w World) (roles grant.RoleSet, err error) {
	if own, _ := c.Caller.SPIFFEID(); !c.Rule.Issues || own == s.id || w.GrantsOf == nil {
		return 0, nil
	}
	held, err := w.GrantsOf(s.id)
	if err != nil {
		return 0, fmt.Errorf("read the roles of %s, without which it is not issued: %w", s.id, err)
	}
	for _, h := range held {
		grantable := slices.ContainsFunc(c.Grants, func(g grant.Grant) bool {
			return g.Role == grant.Admin && (g.Everywhere() || g.TrustDomain == h.TrustDomain)
		})
		if grant.Privileged.Has(h.Role) && !grantable {
			roles |= grant.NewRoleSet(h.Role)
		}
	}
	return roles, nil
}

// later returns the reason that is closer to an allowed call. It is the one to report.
func later(a, b Reason) Reason {
	order := []Reason{ReasonNoGrant, ReasonRole, ReasonDomain, ReasonPath, ReasonDNS, ReasonPrivileged}
	return order[max(slices.Index(order, a), slices.Index(order, b))]
}

// requirement is what grants have to cover for a call: a SPIFFE ID, some trust domains, everything, or nothing.
type requirement struct {
	id         spiffeid.ID
	domains    []spiffeid.TrustDomain
	everywhere bool
}

func requirementOf(rule Rule, target Target, w World) (requirement, error) {
	var s requirement
	if rule.Reach == Cluster {
		return requirement{everywhere: true}, nil
	}
	if rule.Issues || target.SPIFFEID != "" {
		id, err := bundle.ParseID(target.SPIFFEID)
		if err != nil {
			return s, apierror.InField("spiffe_id", err)
		}
		s.id = id
		for _, name := range target.DNSNames {
			if err := dnsname.Check(name); err != nil {
				return s, apierror.InField("dns_names", err)
			}
		}
		return s, nil
	}
	for _, name := range target.TrustDomains {
		td, err := bundle.ParseTrustDomain(name)
		if err != nil {
			return s, apierror.InField("trust_domain", err)
		}
		if rule.Reach != Bundles || w.hosts(td) {
			s.domains = append(s.domains, td)
		}
	}
	if len(target.TrustDomains) == 0 {
		switch {
		case rule.DefaultsToHome:
			s.domains = append(s.domains, w.Home)
		case rule.Reach == Domain:
			s.everywhere = true
		}
	}
	return s, nil
}

func (w World) hosts(td spiffeid.TrustDomain) bool { return w.Hosted != nil && w.Hosted(td) }

// domainsWithin reports whether grants of the roles, taken together, cover the required domains.
func (s requirement) domainsWithin(grants []grant.Grant, roles []grant.Role) bool {
	covered := func(by func(grant.Grant) bool) bool {
		return slices.ContainsFunc(grants, func(g grant.Grant) bool { return slices.Contains(roles, g.Role) && by(g) })
	}
	if s.everywhere && !covered(grant.Grant.Everywhere) {
		return false
	}
	for _, td := range s.domains {
		if !covered(func(g grant.Grant) bool { return g.Covers(td) }) {
			return false
		}
	}
	return true
}

// missing describes the grant that a call lacks, with the command that creates it.
func (c Call) missing(s requirement, w World) string {
	id, _ := c.Caller.SPIFFEID()
	lacking := grant.Grant{Role: c.Rule.Roles[0], Caller: id}
	where := ""
	switch {
	case s.everywhere:
		where = " in every hosted domain"
	case !s.id.IsZero():
		td := s.id.TrustDomain()
		where = fmt.Sprintf(" in %s", td.Name())
		if w.hosts(td) || lacking.Role == grant.Discovery {
			lacking.TrustDomain = td
		} else {
			where = fmt.Sprintf(" in every hosted domain (%s is not one)", td.Name())
		}
		if grant.TakesPath(lacking.Role) && s.id.Path() != "" {
			lacking.PathPrefix = s.id.Path()
			where += " for the path " + s.id.Path()
		}
		dns, err := grant.ParseDNSPatterns(c.Target.DNSNames)
		if err == nil && dns != "" && lacking.Role == grant.Issuer {
			lacking.DNS = dns
			where += " with the DNS names " + strings.Join(dns.List(), ", ")
		}
	default:
		for _, td := range s.domains {
			alone := requirement{domains: []spiffeid.TrustDomain{td}}
			if !alone.domainsWithin(c.Grants, c.Rule.Roles) {
				where = " in " + td.Name()
				if w.hosts(td) {
					lacking.TrustDomain = td
				}
				break
			}
		}
	}
	command := lacking.Command()
	if c.Rule.unread {
		command += " --domain TRUST_DOMAIN"
		if grant.TakesPath(lacking.Role) {
			command += " --path PATH"
		}
	}
	return fmt.Sprintf("%s may not call %s: it needs the role %s%s, and has %s. To allow it, an administrator runs: %s",
		c.Caller, shortMethod(c.Method), grant.RoleNames(c.Rule.Roles), where, grant.Describe(c.Grants), command)
}

// visible returns a function that reports whether the caller may see a trust domain in a response: whether a grant of
// one of the rule's roles covers it. It returns nil if the caller may see everything.
func visible(c Call, w World) func(trustDomain string) bool {
	if c.Caller.Kind() == Socket || c.Rule.Agents && isAgent(c.Caller, w) {
		return nil
	}
	everything := requirement{everywhere: true}
	if everything.domainsWithin(c.Grants, c.Rule.Roles) {
		return nil
	}
	return func(name string) bool {
		td, err := bundle.ParseTrustDomain(name)
		if err != nil {
			return false
		}
		if c.Rule.Reach == Bundles && !w.hosts(td) {
			return true
		}
		one := requirement{domains: []spiffeid.TrustDomain{td}}
		return one.domainsWithin(c.Grants, c.Rule.Roles)
	}
}

// shortMethod returns DomainService/CreateDomain for /entente.v1.DomainService/CreateDomain.
func shortMethod(full string) string {
	return strings.TrimPrefix(strings.TrimPrefix(full, "/"), "entente.v1.")
}
