package grant

import (
	"fmt"
	"strings"
)

// Describe lists the grants of a caller for a sentence.
func Describe(grants []Grant) string {
	const enough = 3
	if len(grants) == 0 {
		return "none"
	}
	var parts []string
	for _, g := range grants[:min(len(grants), enough)] {
		part := RoleName(g.Role)
		if g.Everywhere() {
			part += " in every hosted domain"
		} else {
			part += " in " + g.TrustDomain.Name()
		}
		if g.PathPrefix != "" {
			part += " below " + g.PathPrefix
		}
		if g.DNS != "" {
			part += " with DNS names " + string(g.DNS)
		}
		if g.MayIssue != 0 {
			part += " for IDs with the role " + RoleNames(g.MayIssue.List())
		}
		if g.Services != "" {
			part += " for services " + string(g.Services)
		}
		parts = append(parts, part)
	}
	if more := len(grants) - enough; more > 0 {
		parts = append(parts, fmt.Sprintf("%d more", more))
	}
	return strings.Join(parts, ", ")
}
