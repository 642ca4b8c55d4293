package vaultca

import (
	"fmt"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// PolicyFor says whose rights to print.
type PolicyFor struct {
	Mount string
	// Issuers are the references that can sign; none: default.
	Issuers []string
	// TrustDomain is the one that the mount belongs to. Left out, the policy allows signing for any domain.
	TrustDomain spiffeid.TrustDomain
}

// right is one rule of the policy. Anchors need none: Vault tells them to anybody.
type right struct {
	path         string
	capabilities string
	why          string
	allowed      []string // lines of allowed_parameters
}

// rights are exactly those that this package uses.
func rights(p PolicyFor) []right {
	name := "spiffe://*"
	if p.TrustDomain.Name() != "" {
		name = p.TrustDomain.IDString()
	}
	var all []right
	for _, issuer := range (Mount{Issuers: p.Issuers}).issuers() {
		all = append(all, right{
			path: p.Mount + "/issuer/" + issuer + "/sign-intermediate", capabilities: `"update"`,
			why: "Sign this member's signing certificates: for this name, without a CA below, and nothing else from the request but its key.",
			allowed: []string{
				`"csr"                  = []`,
				fmt.Sprintf(`"common_name"          = [%q]`, commonName),
				`"exclude_cn_from_sans" = [true]`,
				fmt.Sprintf(`"uri_sans"             = [%q]`, name),
				fmt.Sprintf(`"max_path_length"      = [%q]`, pathLength),
				`"ttl"                  = []`,
				fmt.Sprintf(`"not_before_duration"  = ["%ds"]`, int(backdating.Seconds())),
				`"use_csr_values"       = [false]`,
			},
		})
	}
	return append(all, []right{
		{path: p.Mount + "/revoke", capabilities: `"update"`, why: "Revoke a signing certificate, by `entente authority revoke`.", allowed: []string{`"serial_number" = []`}},
		{path: p.Mount + "/roles", capabilities: `"list"`, why: "Look for roles that could issue SPIFFE IDs too, by `entente vault check`."},
		{path: p.Mount + "/roles/*", capabilities: `"read"`},
		{path: "auth/token/renew-self", capabilities: `"update"`, why: "Keep the login alive."},
		{path: "auth/token/lookup-self", capabilities: `"read"`, why: "Learn how long a token that was given lasts."},
	}...)
}

// Policy prints a Vault policy with exactly the rights that a member uses, and a reason for each.
func Policy(p PolicyFor) (string, error) {
	return Policies([]PolicyFor{p}, nil)
}

// printRights prints rights as Vault reads them.
func printRights(all []right) string {
	var out strings.Builder
	for i, r := range all {
		if i > 0 && r.why != "" {
			out.WriteString("\n")
		}
		if r.why != "" {
			fmt.Fprintf(&out, "# %s\n", r.why)
		}
		fmt.Fprintf(&out, "path %q {\n  capabilities = [%s]\n", r.path, r.capabilities)
		if len(r.allowed) > 0 {
			out.WriteString("  allowed_parameters = {\n")
			for _, line := range r.allowed {
				fmt.Fprintf(&out, "    %s\n", line)
			}
			out.WriteString("  }\n")
		}
		out.WriteString("}\n")
	}
	return out.String()
}
