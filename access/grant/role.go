package grant

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

// RoleSet is a set of roles. It is comparable.
type RoleSet uint32

// NewRoleSet returns the set of some roles.
func NewRoleSet(roles ...Role) (s RoleSet) {
	for _, r := range roles {
		s |= 1 << r
	}
	return s
}

// Has reports whether a role is in the set.
func (s RoleSet) Has(r Role) bool { return s&(1<<r) != 0 }

// List returns the roles of the set in ascending order.
func (s RoleSet) List() (roles []Role) {
	for r := Admin; s>>r != 0; r++ {
		if s.Has(r) {
			roles = append(roles, r)
		}
	}
	return roles
}

// String lists the roles for a sentence: "admin and peer".
func (s RoleSet) String() string {
	var names []string
	for _, r := range s.List() {
		names = append(names, RoleName(r))
	}
	return strings.Join(names, " and ")
}

// Privileged are the roles whose holders an issuer does not issue without a grant that names the role: an issuer that
// issued itself such an ID would have the role.
var Privileged = NewRoleSet(Admin, Operator, Issuer, Peer)

// parseMayIssue returns the roles of a grant of the role issuer.
func parseMayIssue(role Role, roles []Role) (RoleSet, error) {
	if len(roles) > 0 && role != Issuer {
		return 0, fmt.Errorf("may_issue is for the role issuer: leave it out for %s", RoleName(role))
	}
	for _, r := range roles {
		if !knownRole(r) || !Privileged.Has(r) {
			return 0, fmt.Errorf("may_issue lists %s: it is for the roles %s", RoleName(r),
				RoleNames(Privileged.List()))
		}
	}
	return NewRoleSet(roles...), nil
}

// TakesPath reports whether a grant of the role can be narrowed to a path prefix.
func TakesPath(r Role) bool { return r == Issuer || r == Discovery }

// RoleNames lists roles for a sentence: "admin, operator or reader".
func RoleNames(roles []Role) string {
	names := make([]string, len(roles))
	for i, r := range roles {
		names[i] = RoleName(r)
	}
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	return fmt.Sprintf("%s or %s", strings.Join(names[:len(names)-1], ", "), names[len(names)-1])
}
