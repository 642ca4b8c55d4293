// Package dnsname has the rule for host names, which is the same for certificates, endpoints and grants.
package dnsname

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// label matches a label of a host name as in RFC 1123. It is lower case, so each name has one spelling.
var label = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

var allDigits = regexp.MustCompile(`^[0-9]+$`)

// Check returns an error if name cannot be a host name in a certificate. It refuses wildcards, because an SVID
// names one workload, and names that a client would parse as an IP address.
func Check(name string) error {
	if name == "" {
		return errors.New("a DNS name is empty")
	}
	if len(name) > 253 {
		return fmt.Errorf("DNS name %.32q… is %d bytes long; 253 is the limit", name, len(name))
	}
	labels := strings.Split(name, ".")
	for _, l := range labels {
		if !label.MatchString(l) {
			return fmt.Errorf("%q is not a DNS name: its labels are 1 to 63 of a-z, 0-9 and -, without - at the ends",
				name)
		}
	}
	if last := labels[len(labels)-1]; allDigits.MatchString(last) {
		return fmt.Errorf("%q is not a DNS name: its last label is a number", name)
	}
	return nil
}
