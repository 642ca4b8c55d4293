package svid

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"net"
	"strings"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/ententehq/entente/bundle/internal/refusal"
)

// Tags of a GeneralName (RFC 5280, section 4.2.1.6).
var (
	tagDNSName       = der.Tag(2).ContextSpecific()
	tagDirectoryName = der.Tag(4).ContextSpecific().Constructed()
	tagURI           = der.Tag(6).ContextSpecific()
	tagIPAddress     = der.Tag(7).ContextSpecific()
)

// subtree is one entry of an extension name constraints.
type subtree struct {
	tag  der.Tag
	base []byte
	// bounded is set if it has a minimum or a maximum, which RFC 5280 does not allow and OpenSSL refuses.
	bounded bool
}

// constraints is an extension name constraints.
type constraints struct{ permitted, excluded []subtree }

// name is a name of a certificate, as a GeneralName has it.
type name struct {
	tag   der.Tag
	kind  string
	text  string // for an error
	value []byte
}

// CheckNames checks the names of each certificate of a path, with the one whose names count first, against the name
// constraints of all those above it, anchor included. Certificates that issued themselves are exempt, except for the
// first (RFC 5280, section 6.1.4). The error is a [*Misfit].
//
// Go and OpenSSL read some constraints differently. A permitted subtree counts by the narrower reading and an excluded
// one by the wider, so that a path which passes is accepted by both. Email addresses and registered IDs are left to Go.
func CheckNames(path []*x509.Certificate) error {
	for at := len(path) - 1; at > 0; at-- {
		value, has := extension(path[at], oidNameConstraints)
		if !has {
			continue
		}
		const what = "name constraints"
		limits, ok := parseConstraints(value)
		if !ok {
			return &Misfit{path[at], what, "they cannot be decoded"}
		}
		for i, cert := range path[:at] {
			if i > 0 && selfIssued(cert) {
				continue
			}
			for _, n := range namesOf(cert) {
				if why := limits.refuse(n); why != "" {
					return &Misfit{path[at], what, why}
				}
			}
		}
	}
	return nil
}

// namesOf returns the names of a certificate that constraints apply to.
func namesOf(cert *x509.Certificate) []name {
	var all []name
	if len(cert.Subject.Names) > 0 {
		all = append(all, name{tagDirectoryName, "the subject", cert.Subject.String(), cert.RawSubject})
	}
	for _, dns := range cert.DNSNames {
		all = append(all, name{tagDNSName, "the DNS name", dns, []byte(dns)})
	}
	for _, ip := range cert.IPAddresses {
		value := ip
		if v4 := ip.To4(); v4 != nil {
			value = v4
		}
		all = append(all, name{tagIPAddress, "the IP address", ip.String(), value})
	}
	for _, uri := range cert.URIs {
		all = append(all, name{tagURI, "the URI", uri.String(), []byte(uri.Host)})
	}
	return all
}

// refuse returns why the constraints refuse a name, or "".
func (c constraints) refuse(n name) string {
	quoted := n.kind + " " + refusal.Clip(n.text)
	constrained, allowed := false, false
	for _, s := range c.permitted {
		if s.tag != n.tag {
			continue
		}
		if s.bounded {
			return "a permitted subtree has a minimum or a maximum, which OpenSSL refuses"
		}
		constrained = true
		allowed = allowed || s.permits(n)
	}
	if constrained && !allowed {
		return quoted + " is in no permitted subtree"
	}
	for _, s := range c.excluded {
		if s.tag != n.tag {
			continue
		}
		if s.bounded {
			return "an excluded subtree has a minimum or a maximum, which OpenSSL refuses"
		}
		if s.excludes(n) {
			return quoted + " is in an excluded subtree"
		}
	}
	return ""
}

// permits reports whether both Go and OpenSSL find the name in the subtree.
func (s subtree) permits(n name) bool {
	if n.tag == tagURI && !bytes.HasPrefix(s.base, []byte(".")) {
		return strings.EqualFold(string(s.base), string(n.value)) // RFC 5280: a host stands for itself alone
	}
	return s.excludes(n)
}

// excludes reports whether Go or OpenSSL finds the name in the subtree.
func (s subtree) excludes(n name) bool {
	switch s.tag {
	case tagDirectoryName:
		return withinName(s.base, n.value)
	case tagIPAddress:
		size := len(n.value)
		if len(s.base) != 2*size {
			return false
		}
		network := net.IPNet{IP: s.base[:size], Mask: s.base[size:]}
		return network.Contains(n.value)
	default: // Go reads the host of a URI as a DNS name, below which all others are
		return withinDomain(string(s.base), string(n.value))
	}
}

// withinDomain reports whether host is domain or below it. An empty domain has every host. One that begins with a dot
// has only those below it.
func withinDomain(domain, host string) bool {
	domain, host = strings.ToLower(domain), strings.ToLower(host)
	if domain == "" || domain == host {
		return true
	}
	if !strings.HasPrefix(domain, ".") {
		domain = "." + domain
	}
	return len(host) > len(domain) && strings.HasSuffix(host, domain)
}

// withinName reports whether a directory name begins with the other one.
func withinName(base, full []byte) bool {
	b, ok := canonicalName(base)
	f, okFull := canonicalName(full)
	if !ok || !okFull || len(b) > len(f) {
		return false
	}
	for i := range b {
		if b[i] != f[i] {
			return false
		}
	}
	return true
}

func sameName(a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	x, okX := canonicalName(a)
	y, okY := canonicalName(b)
	return okX && okY && len(x) == len(y) && withinName(a, b)
}

// canonicalName returns the parts of a directory name for a comparison: OpenSSL ignores the kind of a string, its case,
// and spaces around and within it.
func canonicalName(encoded []byte) ([]string, bool) {
	var sequence pkix.RDNSequence
	if rest, err := asn1.Unmarshal(encoded, &sequence); err != nil || len(rest) > 0 {
		return nil, false
	}
	parts := make([]string, len(sequence))
	for i, set := range sequence {
		var b strings.Builder
		for _, attribute := range set {
			value := fmt.Sprintf("%v", attribute.Value)
			fmt.Fprintf(&b, "%s=%q,", attribute.Type, strings.ToLower(strings.Join(strings.Fields(value), " ")))
		}
		parts[i] = b.String()
	}
	return parts, true
}

func parseConstraints(value cryptobyte.String) (c constraints, ok bool) {
	var content, permitted, excluded cryptobyte.String
	var hasPermitted, hasExcluded bool
	tag := func(n uint8) der.Tag { return der.Tag(n).ContextSpecific().Constructed() }
	if !value.ReadASN1(&content, der.SEQUENCE) || !value.Empty() ||
		!content.ReadOptionalASN1(&permitted, &hasPermitted, tag(0)) ||
		!content.ReadOptionalASN1(&excluded, &hasExcluded, tag(1)) || !content.Empty() {
		return c, false
	}
	if c.permitted, ok = parseSubtrees(permitted); !ok {
		return c, false
	}
	c.excluded, ok = parseSubtrees(excluded)
	return c, ok
}

func parseSubtrees(list cryptobyte.String) (all []subtree, ok bool) {
	for !list.Empty() {
		var entry, base cryptobyte.String
		var s subtree
		if !list.ReadASN1(&entry, der.SEQUENCE) || !entry.ReadAnyASN1(&base, &s.tag) {
			return nil, false
		}
		s.base, s.bounded = base, !entry.Empty()
		all = append(all, s)
	}
	return all, true
}

// Constrained reports whether a certificate constrains the names of those below it.
func Constrained(cert *x509.Certificate) bool {
	_, has := extension(cert, oidNameConstraints)
	return has
}
