package endpoint

import (
	"net"
	"strings"

	"golang.org/x/net/idna"
)

// IsHostName reports whether host is a DNS name in lower case, without a dot at its end. Addresses and wildcards are
// not.
func IsHostName(host string) bool {
	if host == "" || len(host) > 253 || net.ParseIP(host) != nil {
		return false
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			if c := label[i]; !isLabelByte(c) && c != '-' {
				return false
			}
		}
	}
	return true
}

// lookupName returns the name that is looked up for the host of a URL. One of ASCII stands for itself, as in net/http:
// names with an underscore, as Docker and Windows give them out, are no host names of RFC 952 and exist.
func lookupName(host string) (string, error) {
	lower := strings.ToLower(host)
	plain := !strings.ContainsFunc(lower, func(r rune) bool {
		return r > 127 || !isLabelByte(byte(r)) && r != '-' && r != '_' && r != '.'
	})
	if plain && !strings.Contains(lower, "..") {
		return lower, nil
	}
	return idna.Lookup.ToASCII(host)
}

// CanonicalHost returns a host name in the form in which it is compared: lower case, no trailing dot.
func CanonicalHost(host string) string {
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

func isLabelByte(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' }
