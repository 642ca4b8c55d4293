package grant

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// dnsLabel matches a label of a host name as in RFC 1123. It is lower case, so each name has one spelling.
var dnsLabel = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

var allDigits = regexp.MustCompile(`^[0-9]+$`)

// CheckDNSName returns an error if name cannot be a host name in a certificate. It refuses wildcards, because an SVID
// names one workload, and names that a client would parse as an IP address.
func CheckDNSName(name string) error {
	if name == "" {
		return errors.New("a DNS name is empty")
	}
	if len(name) > 253 {
		return fmt.Errorf("DNS name %.32q… is %d bytes long; 253 is the limit", name, len(name))
	}
	labels := strings.Split(name, ".")
	for _, label := range labels {
		if !dnsLabel.MatchString(label) {
			return fmt.Errorf("%q is not a DNS name: its labels are 1 to 63 of a-z, 0-9 and -, without - at the ends",
				name)
		}
	}
	if last := labels[len(labels)-1]; allDigits.MatchString(last) {
		return fmt.Errorf("%q is not a DNS name: its last label is a number", name)
	}
	return nil
}

// maxDNSPatterns is the limit for one grant. For more names there are suffixes and further grants.
const maxDNSPatterns = 32

// DNSPatterns are the DNS names that a grant of the role issuer covers, sorted and joined by spaces, so grants are
// comparable. A pattern is one name, or a dot and a name for every name that ends with these whole labels. The empty
// string covers no name.
type DNSPatterns string

// ParseDNSPatterns parses the patterns of a grant. An error names the one that is refused.
func ParseDNSPatterns(patterns []string) (DNSPatterns, error) {
	if n := len(patterns); n > maxDNSPatterns {
		return "", fmt.Errorf("dns_names lists %d names: list %d at most, or a suffix such as .example.org for many",
			n, maxDNSPatterns)
	}
	for _, p := range patterns {
		if err := CheckDNSName(strings.TrimPrefix(p, ".")); err != nil {
			return "", fmt.Errorf("dns_names: %w; write web.example.org for one name, or .example.org for all below it",
				err)
		}
	}
	sorted := slices.Sorted(slices.Values(patterns))
	return DNSPatterns(strings.Join(slices.Compact(sorted), " ")), nil
}

// List returns the patterns.
func (p DNSPatterns) List() []string { return strings.Fields(string(p)) }

// cover reports whether a pattern covers each of the names.
func (p DNSPatterns) cover(names []string) bool {
	patterns := p.List()
	for _, name := range names {
		within := func(pattern string) bool {
			return name == pattern ||
				strings.HasPrefix(pattern, ".") && strings.HasSuffix(name, pattern) && len(name) > len(pattern)
		}
		if !slices.ContainsFunc(patterns, within) {
			return false
		}
	}
	return true
}
