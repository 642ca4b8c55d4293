package vaultca

import (
	"errors"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/vaultca/transit"
	"github.com/ententehq/entente/vaultca/vault"
)

// PolicyFor selects the rights to print.
type PolicyFor struct {
	Mount string
	// Issuers are the references that can sign. If empty, the default issuer can.
	Issuers []string
	// TrustDomain is the domain of the mount. If zero, the policy allows signing for any domain.
	TrustDomain spiffeid.TrustDomain
}

// rights returns exactly the rights that this package uses.
func rights(p PolicyFor) []vault.Right {
	name := "spiffe://*"
	if p.TrustDomain.Name() != "" {
		name = p.TrustDomain.IDString()
	}
	var all []vault.Right
	for _, issuer := range (Mount{Issuers: p.Issuers}).issuers() {
		all = append(all, vault.Right{
			Path: p.Mount + "/issuer/" + issuer + "/sign-intermediate", Capabilities: `"update"`,
			Why: "Sign this member's signing certificates: for this name, without a CA below, and nothing else from " +
				"the request but its key.",
			Allowed: []string{
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
	return append(all, []vault.Right{
		{
			Path:         p.Mount + "/revoke",
			Capabilities: `"update"`,
			Why:          "Revoke a signing certificate, by `entente authority revoke`.",
			Allowed:      []string{`"serial_number" = []`},
		},
		{
			Path:         p.Mount + "/roles",
			Capabilities: `"list"`,
			Why:          "Look for roles that could issue SPIFFE IDs too, by `entente vault check`.",
		},
		{Path: p.Mount + "/roles/*", Capabilities: `"read"`},
	}...)
}

// Policies prints one Vault policy with exactly the rights that a member uses of some PKI and Transit mounts.
func Policies(pki []PolicyFor, transitPolicies []transit.PolicyFor) (string, error) {
	if len(pki)+len(transitPolicies) == 0 {
		return "", errors.New("name a PKI or a Transit mount")
	}
	var all []vault.Right
	for _, p := range pki {
		if err := errors.Join(vault.CheckPath("mount", p.Mount), checkIssuers(p.Issuers)); err != nil {
			return "", err
		}
		all = append(all, rights(p)...)
	}
	for _, p := range transitPolicies {
		if err := errors.Join(vault.CheckPath("transit mount", p.Mount), transit.CheckKeyPrefix(p.Prefix, p.Cluster,
			p.Member)); err != nil {
			return "", err
		}
		all = append(all, transit.Rights(p)...)
	}
	return vault.PrintRights(append(all, vault.LoginRights()...)), nil
}

func checkIssuers(refs []string) error {
	var errs []error
	for _, ref := range refs {
		errs = append(errs, checkIssuer(ref))
	}
	return errors.Join(errs...)
}

// PoliciesFor returns the rights that the configuration needs, one for each mount.
func (c Config) PoliciesFor() []PolicyFor {
	var all []PolicyFor
	for _, td := range c.domains() {
		m := c.Mounts[td]
		all = append(all, PolicyFor{Mount: m.Path, Issuers: m.issuers(), TrustDomain: td})
	}
	return all
}
