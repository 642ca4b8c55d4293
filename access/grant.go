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

// Grant gives one caller one role. A Grant that exists is valid. Grants with equal fields are the same grant.
type Grant struct {
	Role   Role
	Caller spiffeid.ID
	// TrustDomain is the hosted domain that the grant is for. The zero value means every hosted domain.
	TrustDomain spiffeid.TrustDomain
	// PathPrefix restricts issuer and discovery to SPIFFE IDs whose path begins with these whole segments. If empty,
	// any path is covered.
	PathPrefix string
	// DNS are the DNS names that an issuer may put into X509-SVIDs. If empty, it may put none.
	DNS DNSPatterns
}

// ReservedPath is the path below which only the server itself issues identities, in every hosted domain.
const ReservedPath = "/entente"

// MemberPath is the prefix of a member's ID in the path of its X509-SVID.
const MemberPath = ReservedPath + "/member/"

// ParseGrant returns the grant with the fields of a request. The error is one sentence that names the field and the
// remedy.
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
		return g, fmt.Errorf("spiffe_id %q names a whole trust domain: name one caller, as in spiffe://%s/ci",
			caller, id.TrustDomain().Name())
	}
	var td spiffeid.TrustDomain
	if trustDomain != "" {
		if td, err = bundle.ParseTrustDomain(trustDomain); err != nil {
			return g, err
		}
	}
	if pathPrefix != "" {
		if !takesPath(role) {
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
	if len(dnsNames) > 0 && role != Issuer {
		return g, fmt.Errorf("dns_names is for the role issuer: leave it out for %s", RoleName(role))
	}
	dns, err := parseDNSPatterns(dnsNames)
	if err != nil {
		return g, err
	}
	return Grant{Role: role, Caller: id, TrustDomain: td, PathPrefix: pathPrefix, DNS: dns}, nil
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

// covers reports whether the grant covers a trust domain.
func (g Grant) covers(td spiffeid.TrustDomain) bool {
	return g.everywhere() || g.TrustDomain == td
}

// everywhere reports whether the grant is for every hosted domain.
func (g Grant) everywhere() bool { return g.TrustDomain.IsZero() }

// coversID reports whether the grant covers the trust domain and the path of a SPIFFE ID.
func (g Grant) coversID(id spiffeid.ID) bool {
	return g.covers(id.TrustDomain()) && HasPathPrefix(id.Path(), g.PathPrefix)
}

// coversDNS reports whether a certificate issued under the grant may carry the DNS names. An administrator may issue
// any name.
func (g Grant) coversDNS(names []string) bool {
	return g.Role == Admin || g.DNS.cover(names)
}

// command returns the command that creates the grant.
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

// key returns the grant's key in its table. The grants of a caller share the prefix callerKeyPrefix. No part of a key
// can contain the separator '|'.
func (g Grant) key() string {
	key := callerKeyPrefix(g.Caller) + RoleName(g.Role) + "|" + g.TrustDomain.Name() + "|" + g.PathPrefix
	if g.DNS == "" {
		return key
	}
	sum := sha256.Sum256([]byte(g.DNS)) // the names are too long for a key
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
