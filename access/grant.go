package access

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
)

// maxIDBytes is the length of the longest SPIFFE ID.
const maxIDBytes = 2048

// Grant gives one caller one role. A Grant that exists is valid; grants with the same fields are the same grant.
type Grant struct {
	Role   Role
	Caller spiffeid.ID
	// TrustDomain is the hosted domain that it is for; the zero value: every one.
	TrustDomain spiffeid.TrustDomain
	// PathPrefix narrows issuer and discovery to SPIFFE IDs whose path begins with these whole segments; empty: any path.
	PathPrefix string
	// DNS are the DNS names that an issuer may put into X509-SVIDs; empty: none.
	DNS DNSPatterns
}

// ReservedPath is the path below which only the server itself issues identities, in every hosted domain.
const ReservedPath = "/entente"

// MemberPath is what comes before a member's ID in the path of its X509-SVID.
const MemberPath = ReservedPath + "/member/"

// ParseGrant makes a grant of what a request says. The error is one sentence with the place and the remedy.
func ParseGrant(role Role, caller, trustDomain, pathPrefix string, dnsNames ...string) (Grant, error) {
	var g Grant
	if !knownRole(role) {
		return g, fmt.Errorf("role %d is none of admin, operator, issuer, peer, discovery and reader", role)
	}
	id, err := bundle.ParseID(caller)
	switch {
	case err != nil:
		return g, err
	case id.Path() == "":
		return g, fmt.Errorf("spiffe_id %q names a whole trust domain: name one caller, as in spiffe://%s/ci", caller, id.TrustDomain().Name())
	}
	var td spiffeid.TrustDomain
	if trustDomain != "" {
		if td, err = bundle.ParseTrustDomain(trustDomain); err != nil {
			return g, err
		}
	}
	if pathPrefix != "" {
		if !takesPath(role) {
			return g, fmt.Errorf("path_prefix is for the roles issuer and discovery: leave it out for %s", RoleName(role))
		}
		if err := spiffeid.ValidatePath(pathPrefix); err != nil {
			return g, fmt.Errorf("path_prefix %q is no path of a SPIFFE ID: %w", clip(pathPrefix), err)
		}
		if role == Issuer && HasPathPrefix(pathPrefix, ReservedPath) {
			return g, fmt.Errorf("path_prefix %q is reserved: only the server itself issues IDs below %s/", clip(pathPrefix), ReservedPath)
		}
	}
	if n := len(pathPrefix); n > maxIDBytes {
		return g, fmt.Errorf("path_prefix has %d bytes: a SPIFFE ID has %d at most", n, maxIDBytes)
	}
	if len(dnsNames) > 0 && role != Issuer {
		return g, fmt.Errorf("dns_names is for the role issuer: leave it out for %s", RoleName(role))
	}
	dns, err := parseDNSPatterns(dnsNames)
	if err != nil {
		return g, err
	}
	return Grant{Role: role, Caller: id, TrustDomain: td, PathPrefix: pathPrefix, DNS: dns}, nil
}

// clip shortens what a caller sent, for an error message.
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

// covers reports whether the grant reaches into a trust domain.
func (g Grant) covers(td spiffeid.TrustDomain) bool {
	return g.everywhere() || g.TrustDomain == td
}

// everywhere reports whether the grant is for every hosted domain.
func (g Grant) everywhere() bool { return g.TrustDomain.IsZero() }

// coversID reports whether the grant reaches a SPIFFE ID: its trust domain, and its path.
func (g Grant) coversID(id spiffeid.ID) bool {
	return g.covers(id.TrustDomain()) && HasPathPrefix(id.Path(), g.PathPrefix)
}

// coversDNS reports whether what the grant lets be issued may carry the DNS names. An administrator's may carry any.
func (g Grant) coversDNS(names []string) bool {
	return g.Role == Admin || g.DNS.cover(names)
}

// command is what an administrator types to make this grant.
func (g Grant) command() string {
	var b strings.Builder
	fmt.Fprintf(&b, "entente access grant %s --spiffe-id %s", RoleName(g.Role), g.Caller)
	if !g.everywhere() {
		fmt.Fprintf(&b, " --domain %s", g.TrustDomain.Name())
	}
	if g.PathPrefix != "" {
		fmt.Fprintf(&b, " --path %s", g.PathPrefix)
	}
	for _, name := range g.DNS.List() {
		fmt.Fprintf(&b, " --dns %s", name)
	}
	return b.String()
}

// key is the grant's key in its table. A caller's grants stand together, below callerKeyPrefix: no part of a key
// can hold the '|' that separates them.
func (g Grant) key() string {
	key := callerKeyPrefix(g.Caller) + RoleName(g.Role) + "|" + g.TrustDomain.Name() + "|" + g.PathPrefix
	if g.DNS == "" {
		return key
	}
	sum := sha256.Sum256([]byte(g.DNS)) // they are too long for a key
	return key + "|" + hex.EncodeToString(sum[:])
}

func callerKeyPrefix(id spiffeid.ID) string { return id.String() + "|" }

func (g Grant) row(by Caller, at time.Time) *statev1.Grant {
	return &statev1.Grant{
		Role:        int32(g.Role),
		SpiffeId:    g.Caller.String(),
		TrustDomain: g.TrustDomain.Name(),
		PathPrefix:  g.PathPrefix,
		CreateTime:  timestamppb.New(at),
		GrantedBy:   by.String(),
		DnsNames:    g.DNS.List(),
	}
}

func grantFromRow(r *statev1.Grant) (Grant, error) {
	return ParseGrant(Role(r.GetRole()), r.GetSpiffeId(), r.GetTrustDomain(), r.GetPathPrefix(), r.GetDnsNames()...)
}

func grantMessage(r *statev1.Grant, revision uint64) *ententev1.Grant {
	return &ententev1.Grant{
		Role:        Role(r.GetRole()),
		SpiffeId:    r.GetSpiffeId(),
		TrustDomain: r.GetTrustDomain(),
		PathPrefix:  r.GetPathPrefix(),
		CreateTime:  r.GetCreateTime(),
		Revision:    revision,
		DnsNames:    r.GetDnsNames(),
	}
}
