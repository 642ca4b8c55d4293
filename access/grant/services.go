package grant

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// ServiceNames are the services of a grant of the role discovery, sorted and joined by spaces, so that grants are
// comparable.
type ServiceNames string

// List returns the names.
func (n ServiceNames) List() []string { return strings.Fields(string(n)) }

// maxGrantServices is the limit for one grant, whose owner is stored once for each. For more there are further grants.
const maxGrantServices = 32

// serviceName matches the names that services can have.
var serviceName = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]{0,126}[a-z0-9])?$`)

// parseServices returns the services of a grant of the role discovery.
func parseServices(role Role, names []string) (ServiceNames, error) {
	if len(names) > 0 && role != Discovery {
		return "", fmt.Errorf("services are for the role discovery: leave them out for %s", RoleName(role))
	}
	if n := len(names); n > maxGrantServices {
		return "", fmt.Errorf("services lists %d names: list %d at most, and the others in a further grant", n,
			maxGrantServices)
	}
	for _, name := range names {
		if !serviceName.MatchString(name) {
			return "", fmt.Errorf("services lists %q, which is not the name of a service: small letters, digits, '-', "+
				"'_' and '.' are allowed, a letter or digit first and last, 128 in all", clip(name))
		}
	}
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	return ServiceNames(strings.Join(names, " ")), nil
}
