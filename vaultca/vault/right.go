package vault

import (
	"fmt"
	"strings"
)

// Right is one rule of the policy. Anchors need none: Vault serves them without a login.
type Right struct {
	Path         string
	Capabilities string
	Why          string
	Allowed      []string // lines of allowed_parameters
}

// LoginRights returns the rights that every login needs.
func LoginRights() []Right {
	return []Right{
		{Path: "auth/token/renew-self", Capabilities: `"update"`, Why: "Keep the login alive."},
		{Path: "auth/token/lookup-self", Capabilities: `"read"`, Why: "Learn how long a token that was given lasts."},
	}
}

// PrintRights prints rights in the syntax of Vault's policies.
func PrintRights(all []Right) string {
	var out strings.Builder
	for i, r := range all {
		if i > 0 && r.Why != "" {
			out.WriteString("\n")
		}
		if r.Why != "" {
			fmt.Fprintf(&out, "# %s\n", r.Why)
		}
		fmt.Fprintf(&out, "path %q {\n  capabilities = [%s]\n", r.Path, r.Capabilities)
		if len(r.Allowed) > 0 {
			out.WriteString("  allowed_parameters = {\n")
			for _, line := range r.Allowed {
				fmt.Fprintf(&out, "    %s\n", line)
			}
			out.WriteString("  }\n")
		}
		out.WriteString("}\n")
	}
	return out.String()
}
