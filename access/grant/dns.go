package grant

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ententehq/entente/internal/dnsname"
)

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
		if err := dnsname.Check(strings.TrimPrefix(p, ".")); err != nil {
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
