package vaultca

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// TransitPolicyFor says whose rights to keys in Transit to print.
type TransitPolicyFor struct {
	Mount string
	// Prefix begins the names of the keys; empty: [DefaultKeyPrefix].
	Prefix, Cluster string
	// Member is the one whose keys they are. Left out, the policy reaches the keys of all members of the cluster.
	Member string
}

// transitRights are exactly those that a [Transit] uses. Vault knows no pattern with something after the name, so one rule
// covers making, reading and deleting; its parameters allow no key that can leave Vault.
func transitRights(p TransitPolicyFor) []right {
	prefix := KeyPrefix(p.Prefix, p.Cluster, p.Member)
	return []right{
		{
			path: p.Mount + "/keys/" + prefix + "*", capabilities: `"update", "read", "delete"`,
			why: "Make signing keys that cannot leave Vault, look whether they are still there, and delete those that are done with.",
			allowed: []string{
				fmt.Sprintf(`"type"                   = [%q]`, keyType),
				`"exportable"             = [false]`,
				`"allow_plaintext_backup" = [false]`,
				`"deletion_allowed"       = [true]`,
			},
		},
		{
			path: p.Mount + "/sign/" + prefix + "*", capabilities: `"update"`,
			why: "Sign with them.",
			allowed: []string{
				`"input"                = []`,
				`"prehashed"            = [true]`,
				`"hash_algorithm"       = ["sha2-256"]`,
				`"marshaling_algorithm" = ["asn1"]`,
				fmt.Sprintf(`"key_version"          = [%q]`, keyVersion),
			},
		},
	}
}

// loginRights begin the paths of the rights that every login needs.
const loginRights = "auth/token/"

// Policies prints one Vault policy with exactly the rights that a member uses of some PKI and Transit mounts.
func Policies(pki []PolicyFor, transit []TransitPolicyFor) (string, error) {
	if len(pki)+len(transit) == 0 {
		return "", errors.New("name a PKI or a Transit mount")
	}
	var all, login []right
	for _, p := range pki {
		if err := errors.Join(checkPath("mount", p.Mount), checkIssuers(p.Issuers)); err != nil {
			return "", err
		}
		all = append(all, rights(p)...)
	}
	for _, p := range transit {
		if err := errors.Join(checkPath("transit mount", p.Mount), checkKeyPrefix(p.Prefix, p.Cluster, p.Member)); err != nil {
			return "", err
		}
		all = append(all, transitRights(p)...)
	}
	all = slices.DeleteFunc(all, func(r right) bool { return strings.HasPrefix(r.path, loginRights) })
	for _, r := range rights(PolicyFor{}) {
		if strings.HasPrefix(r.path, loginRights) {
			login = append(login, r)
		}
	}
	return printRights(append(all, login...)), nil
}

func checkIssuers(refs []string) error {
	var errs []error
	for _, ref := range refs {
		errs = append(errs, checkIssuer(ref))
	}
	return errors.Join(errs...)
}

// PolicyFor is the rights that the configuration needs.
func (c TransitConfig) PolicyFor() TransitPolicyFor {
	return TransitPolicyFor{Mount: c.Mount, Prefix: c.Prefix, Cluster: c.Cluster, Member: c.Member}
}

// PoliciesFor are the rights that the configuration needs, a mount each.
func (c Config) PoliciesFor() []PolicyFor {
	var all []PolicyFor
	for _, td := range c.domains() {
		m := c.Mounts[td]
		all = append(all, PolicyFor{Mount: m.Path, Issuers: m.issuers(), TrustDomain: td})
	}
	return all
}
