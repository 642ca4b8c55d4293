package endpoint

import (
	"net"
	"strings"
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

// CanonicalHost returns a host name in the form in which it is compared: lower case, no trailing dot.
func CanonicalHost(host string) string {
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

func isLabelByte(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' }
