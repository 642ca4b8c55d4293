package bundle

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/bundle/internal/refusal"
)

// Bounds of the SPIFFE ID standard, section 2.
const (
	MaxTrustDomainBytes = 255
	MaxIDBytes          = 2048
)

const idScheme = "spiffe://"

// ParseTrustDomain parses the name of a trust domain, such as "example.org". It refuses SPIFFE IDs, upper case and
// names of more than 255 bytes. go-spiffe's parser accepts SPIFFE IDs and longer names.
func ParseTrustDomain(name string) (spiffeid.TrustDomain, error) {
	if err := checkTrustDomain(name); err != nil {
		return spiffeid.TrustDomain{}, err
	}
	td, err := spiffeid.TrustDomainFromString(name)
	if err != nil {
		return spiffeid.TrustDomain{}, fmt.Errorf("trust domain %s: %w: %w", refusal.Clip(name), ErrTrustDomain, err)
	}
	return td, nil
}

// ParseHostedTrustDomain parses the name of a trust domain that is to have X.509 authorities. The standard allows dots
// at either end of a name and next to each other, and no program that follows RFC 5280 reads the name of such a domain
// in a certificate.
func ParseHostedTrustDomain(name string) (spiffeid.TrustDomain, error) {
	td, err := ParseTrustDomain(name)
	if err != nil {
		return td, err
	}
	if strings.HasPrefix(name, ".") || strings.HasSuffix(name, ".") || strings.Contains(name, "..") {
		return spiffeid.TrustDomain{}, fmt.Errorf(
			"trust domain %s: %w: it has a dot at its end or two in a row, and cannot stand in an X509-SVID; write %s",
			refusal.Clip(name),
			ErrTrustDomain,
			withoutEmptyLabels(name),
		)
	}
	return td, nil
}

func withoutEmptyLabels(name string) string {
	labels := slices.DeleteFunc(strings.Split(name, "."), func(label string) bool { return label == "" })
	return refusal.Clip(strings.Join(labels, "."))
}

// ParseID parses a SPIFFE ID by the standard: scheme spiffe in lower case, a valid trust domain, a path of whole
// segments or none, no query, fragment, port, user information or percent-encoding, 2048 bytes in all.
func ParseID(id string) (spiffeid.ID, error) {
	if len(id) > MaxIDBytes {
		return spiffeid.ID{}, fmt.Errorf(
			"SPIFFE ID %s: %w: it has %d bytes; at most %d are allowed",
			refusal.Clip(id),
			ErrID,
			len(id),
			MaxIDBytes,
		)
	}
	rest, ok := strings.CutPrefix(id, idScheme)
	if !ok {
		return spiffeid.ID{}, fmt.Errorf(
			"SPIFFE ID %s: %w: it does not begin with %q",
			refusal.Clip(id),
			ErrID,
			idScheme,
		)
	}
	name, path, _ := strings.Cut(rest, "/")
	if err := checkTrustDomain(name); err != nil {
		return spiffeid.ID{}, fmt.Errorf("SPIFFE ID %s: %w: %w", refusal.Clip(id), ErrID, err)
	}
	if len(rest) > len(name) {
		if err := checkPath(path); err != nil {
			return spiffeid.ID{}, fmt.Errorf("SPIFFE ID %s: %w: %w", refusal.Clip(id), ErrID, err)
		}
	}
	parsed, err := spiffeid.FromString(id)
	if err != nil {
		return spiffeid.ID{}, fmt.Errorf("SPIFFE ID %s: %w: %w", refusal.Clip(id), ErrID, err)
	}
	return parsed, nil
}

// The two checks below do not rely on go-spiffe's, whose character set a build tag can widen.

func checkTrustDomain(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%w: it is empty", ErrTrustDomain)
	case strings.HasPrefix(name, idScheme):
		return fmt.Errorf(
			"trust domain %s: %w: write the name alone, without scheme or path",
			refusal.Clip(name),
			ErrTrustDomain,
		)
	case len(name) > MaxTrustDomainBytes:
		return fmt.Errorf(
			"trust domain %s: %w: it has %d bytes; at most %d are allowed",
			refusal.Clip(name),
			ErrTrustDomain,
			len(name),
			MaxTrustDomainBytes,
		)
	}
	for i := range len(name) {
		if c := name[i]; !isLowerOrDigit(c) && c != '.' && c != '_' && c != '-' {
			return fmt.Errorf(
				"trust domain %s: %w: byte %d is %q; lower-case letters, digits, dot, dash and underscore are allowed",
				refusal.Clip(name),
				ErrTrustDomain,
				i+1,
				c,
			)
		}
	}
	return nil
}

// checkPath checks a path without its first slash.
func checkPath(path string) error {
	for segment := range strings.SplitSeq(path, "/") {
		switch segment {
		case "":
			return fmt.Errorf("its path has an empty segment or a trailing slash")
		case ".", "..":
			return fmt.Errorf("its path has the relative segment %q", segment)
		}
		for i := range len(segment) {
			if c := segment[i]; !isLowerOrDigit(c) && (c < 'A' || c > 'Z') && c != '.' && c != '_' && c != '-' {
				return fmt.Errorf("its path has the byte %q; letters, digits, dot, dash and underscore are allowed", c)
			}
		}
	}
	return nil
}

func isLowerOrDigit(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' }
