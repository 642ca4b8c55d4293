package access

import (
	"fmt"
	"strings"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// Role is the role that a grant gives a caller.
type Role = ententev1.Role

// The roles, in the order of messages.
const (
	Admin     = ententev1.Role_ROLE_ADMIN
	Operator  = ententev1.Role_ROLE_OPERATOR
	Issuer    = ententev1.Role_ROLE_ISSUER
	Peer      = ententev1.Role_ROLE_PEER
	Discovery = ententev1.Role_ROLE_DISCOVERY
	Reader    = ententev1.Role_ROLE_READER
)

// RoleName returns the role's name on the command line, such as "issuer".
func RoleName(r Role) string {
	return strings.ToLower(strings.TrimPrefix(r.String(), "ROLE_"))
}

// knownRole reports whether r is a role.
func knownRole(r Role) bool {
	_, ok := ententev1.Role_name[int32(r)]
	return ok && r != ententev1.Role_ROLE_UNSPECIFIED
}

// takesPath reports whether a grant of the role can be narrowed to a path prefix.
func takesPath(r Role) bool { return r == Issuer || r == Discovery }

// roleNames lists roles for a sentence: "admin, operator or reader".
func roleNames(roles []Role) string {
	names := make([]string, len(roles))
	for i, r := range roles {
		names[i] = RoleName(r)
	}
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	return fmt.Sprintf("%s or %s", strings.Join(names[:len(names)-1], ", "), names[len(names)-1])
}
