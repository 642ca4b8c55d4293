package access

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/bundle"
)

// World is the state of the cluster that a decision depends on.
type World struct {
	// Home is the home trust domain.
	Home spiffeid.TrustDomain
	// Hosted reports whether the cluster is the authority for a trust domain.
	Hosted func(spiffeid.TrustDomain) bool
}

// Call is a call to decide on. Grants are the grants of the caller.
type Call struct {
	Method string // full gRPC method name
	Rule   Rule
	Caller Caller
	Grants []Grant
	Target Target
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
	s, err := requirementOf(c.Rule, c.Target, w)
	if err != nil {
		return &Refusal{ReasonMalformed, err.Error()}
	}
	if c.Rule.Issues && HasPathPrefix(s.id.Path(), ReservedPath) {
		return refuse(ReasonReserved, "%s is never issued through the API: only the server itself issues IDs below "+
			"%s/; choose another path", s.id, ReservedPath)
	}
	if c.Caller.Kind() == Socket || c.Rule.PeerMembers && isPeerMember(c.Caller, w) {
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
	name, ok := strings.CutPrefix(id.Path(), MemberPath)
	return ok && name != "" && !strings.Contains(name, "/")
}

// decide returns nil if a grant of the caller meets the requirement, and otherwise a [Refusal].
func (c Call) decide(s requirement, w World) error {
	reason := ReasonNoGrant
	for _, g := range c.Grants {
		switch {
		case !slices.Contains(c.Rule.Roles, g.Role):
			reason = later(reason, ReasonRole)
		case !s.domainsWithin(c.Grants, c.Rule.Roles):
			reason = later(reason, ReasonDomain)
		case !s.id.IsZero() && !g.coversID(s.id):
			reason = later(reason, ReasonPath)
			if !g.covers(s.id.TrustDomain()) {
				reason = later(reason, ReasonDomain)
			}
		case !g.coversDNS(c.Target.DNSNames):
			reason = later(reason, ReasonDNS)
		default:
			return nil
		}
	}
	return &Refusal{reason, c.missing(s, w)}
}

// later returns the reason that is closer to an allowed call. It is the one to report.
func later(a, b Reason) Reason {
	order := []Reason{ReasonNoGrant, ReasonRole, ReasonDomain, ReasonPath, ReasonDNS}
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
			return s, err
		}
		s.id = id
		for _, name := range target.DNSNames {
			if err := CheckDNSName(name); err != nil {
				return s, err
			}
		}
		return s, nil
	}
	for _, name := range target.TrustDomains {
		td, err := bundle.ParseTrustDomain(name)
		if err != nil {
			return s, err
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
func (s requirement) domainsWithin(grants []Grant, roles []Role) bool {
	covered := func(by func(Grant) bool) bool {
		return slices.ContainsFunc(grants, func(g Grant) bool { return slices.Contains(roles, g.Role) && by(g) })
	}
	if s.everywhere && !covered(Grant.everywhere) {
		return false
	}
	for _, td := range s.domains {
		if !covered(func(g Grant) bool { return g.covers(td) }) {
			return false
		}
	}
	return true
}

// missing describes the grant that a call lacks, with the command that creates it.
func (c Call) missing(s requirement, w World) string {
	id, _ := c.Caller.SPIFFEID()
	grant := Grant{Role: c.Rule.Roles[0], Caller: id}
	where := ""
	switch {
	case s.everywhere:
		where = " in every hosted domain"
	case !s.id.IsZero():
		td := s.id.TrustDomain()
		where = fmt.Sprintf(" in %s", td.Name())
		if w.hosts(td) {
			grant.TrustDomain = td
		} else {
			where = fmt.Sprintf(" in every hosted domain (%s is not one)", td.Name())
		}
		if takesPath(grant.Role) && s.id.Path() != "" {
			grant.PathPrefix = s.id.Path()
			where += " for the path " + s.id.Path()
		}
		if dns, err := parseDNSPatterns(c.Target.DNSNames); err == nil && dns != "" && grant.Role == Issuer {
			grant.DNS = dns
			where += " with the DNS names " + strings.Join(dns.List(), ", ")
		}
	default:
		for _, td := range s.domains {
			alone := requirement{domains: []spiffeid.TrustDomain{td}}
			if !alone.domainsWithin(c.Grants, c.Rule.Roles) {
				where = " in " + td.Name()
				if w.hosts(td) {
					grant.TrustDomain = td
				}
				break
			}
		}
	}
	return fmt.Sprintf("%s may not call %s: it needs the role %s%s, and has %s. To allow it, an administrator runs: %s",
		c.Caller, shortMethod(c.Method), roleNames(c.Rule.Roles), where, describe(c.Grants), grant.command())
}

// describe lists the grants of a caller for a sentence.
func describe(grants []Grant) string {
	const enough = 3
	if len(grants) == 0 {
		return "none"
	}
	var parts []string
	for _, g := range grants[:min(len(grants), enough)] {
		part := RoleName(g.Role)
		if g.everywhere() {
			part += " in every hosted domain"
		} else {
			part += " in " + g.TrustDomain.Name()
		}
		if g.PathPrefix != "" {
			part += " below " + g.PathPrefix
		}
		if g.DNS != "" {
			part += " with DNS names " + string(g.DNS)
		}
		parts = append(parts, part)
	}
	if more := len(grants) - enough; more > 0 {
		parts = append(parts, fmt.Sprintf("%d more", more))
	}
	return strings.Join(parts, ", ")
}

// visible returns a function that reports whether the caller may see a trust domain in a response: whether a grant of
// one of the rule's roles covers it. It returns nil if the caller may see everything.
func visible(c Call, w World) func(trustDomain string) bool {
	if c.Caller.Kind() == Socket {
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
