package grant

import (
	"fmt"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/internal/apierror"
)

// maxIDBytes is the length of the longest SPIFFE ID.
const maxIDBytes = 2048

// Grant gives one caller one role. A Grant that exists is valid. Grants with equal fields are the same grant.
type Grant struct {
	Role   Role
	Caller spiffeid.ID
	// TrustDomain is the hosted domain that the grant is for, or for discovery also a foreign one. The zero value means
	// every domain.
	TrustDomain spiffeid.TrustDomain
	// PathPrefix restricts issuer and discovery to SPIFFE IDs whose path begins with these whole segments. If empty,
	// any path is covered.
	PathPrefix string
	// DNS are the DNS names that an issuer may put into X509-SVIDs. If empty, it may put none.
	DNS DNSPatterns
	// MayIssue are the roles whose holders' IDs an issuer may issue.
	MayIssue RoleSet
	// Services are the services that a caller with the role discovery owns: it may register instances of these alone.
	// If empty, it may register instances of every service without an owner.
	Services ServiceNames
}

// Fields is implemented by the messages that name a grant.
type Fields interface {
	GetRole() Role
	GetSpiffeId() string
	GetTrustDomain() string
	GetPathPrefix() string
	GetDnsNames() []string
	GetMayIssue() []Role
	GetServices() []string
}

// ReservedPath is the path below which only the server itself issues identities, in every hosted domain.
const ReservedPath = "/entente"

// MemberPath is the prefix of a member's ID in the path of its X509-SVID.
const MemberPath = ReservedPath + "/member/"

// AgentPath is the prefix of an agent's ID in the path of its X509-SVID.
const AgentPath = ReservedPath + "/agent/"

// Parse returns the grant that a message names. The error is one sentence that names the field and the remedy.
func Parse(m Fields) (Grant, error) {
	var g Grant
	role, caller, trustDomain, pathPrefix := m.GetRole(), m.GetSpiffeId(), m.GetTrustDomain(), m.GetPathPrefix()
	if !knownRole(role) {
		return g, fmt.Errorf("role %d is none of admin, operator, issuer, peer, discovery and reader", role)
	}
	id, err := bundle.ParseID(caller)
	switch {
	case err != nil:
		return g, apierror.InField("spiffe_id", err)
	case id.Path() == "":
		return g, fmt.Errorf("spiffe_id %q names a whole trust domain: name one caller, as in spiffe://%s/ci",
			caller, id.TrustDomain().Name())
	}
	var td spiffeid.TrustDomain
	if trustDomain != "" {
		if td, err = bundle.ParseTrustDomain(trustDomain); err != nil {
			return g, apierror.InField("trust_domain", err)
		}
	}
	if pathPrefix != "" {
		if !TakesPath(role) {
			return g, fmt.Errorf("path_prefix is for the roles issuer and discovery: leave it out for %s",
				RoleName(role))
		}
		if err := spiffeid.ValidatePath(pathPrefix); err != nil {
			return g, fmt.Errorf("path_prefix %q is not a path of a SPIFFE ID: %w", clip(pathPrefix), err)
		}
		if role == Issuer && HasPathPrefix(pathPrefix, ReservedPath) {
			return g, fmt.Errorf("path_prefix %q is reserved: only the server itself issues IDs below %s/",
				clip(pathPrefix), ReservedPath)
		}
	}
	if n := len(pathPrefix); n > maxIDBytes {
		return g, fmt.Errorf("path_prefix has %d bytes: a SPIFFE ID has %d at most", n, maxIDBytes)
	}
	if len(m.GetDnsNames()) > 0 && role != Issuer {
		return g, fmt.Errorf("dns_names is for the role issuer: leave it out for %s", RoleName(role))
	}
	dns, err := ParseDNSPatterns(m.GetDnsNames())
	if err != nil {
		return g, apierror.InField("dns_names", err)
	}
	mayIssue, err := parseMayIssue(role, m.GetMayIssue())
	if err != nil {
		return g, apierror.InField("may_issue", err)
	}
	services, err := parseServices(role, m.GetServices())
	if err != nil {
		return g, apierror.InField("services", err)
	}
	return Grant{
		Role: role, Caller: id, TrustDomain: td, PathPrefix: pathPrefix, DNS: dns, MayIssue: mayIssue,
		Services: services,
	}, nil
}

// clip shortens a text from a caller for an error message.
func clip(s string) string {
	const enough = 128
	if len(s) > enough {
		return s[:enough] + "…"
	}
	return s
}

// HasPathPrefix reports whether a path begins with the whole segments of prefix: /ci matches /ci and /ci/build,
// not /cinema. The empty prefix matches every path.
func HasPathPrefix(path, prefix string) bool {
	rest, ok := strings.CutPrefix(path, prefix)
	return ok && (prefix == "" || rest == "" || rest[0] == '/')
}

// Covers reports whether the grant covers a trust domain.
func (g Grant) Covers(td spiffeid.TrustDomain) bool {
	return g.Everywhere() || g.TrustDomain == td
}

// Everywhere reports whether the grant is for every hosted domain.
func (g Grant) Everywhere() bool { return g.TrustDomain.IsZero() }

// CoversID reports whether the grant covers the trust domain and the path of a SPIFFE ID.
func (g Grant) CoversID(id spiffeid.ID) bool {
	return g.Covers(id.TrustDomain()) && HasPathPrefix(id.Path(), g.PathPrefix)
}

// CoversDNS reports whether a certificate issued under the grant may carry the DNS names. An administrator may issue
// any name.
func (g Grant) CoversDNS(names []string) bool {
	return g.Role == Admin || g.DNS.cover(names)
}

// Command returns the command that creates the grant.
func (g Grant) Command() string {
	var b strings.Builder
	fmt.Fprintf(&b, "entente access grant %s --spiffe-id %s", RoleName(g.Role), g.Caller)
	if !g.Everywhere() {
		fmt.Fprintf(&b, " --domain %s", g.TrustDomain.Name())
	}
	if g.PathPrefix != "" {
		fmt.Fprintf(&b, " --path %s", g.PathPrefix)
	}
	for _, name := range g.DNS.List() {
		fmt.Fprintf(&b, " --dns %s", name)
	}
	for _, r := range g.MayIssue.List() {
		fmt.Fprintf(&b, " --may-issue %s", RoleName(r))
	}
	for _, service := range g.Services.List() {
		fmt.Fprintf(&b, " --service %s", service)
	}
	return b.String()
}
