package transit

import (
	"fmt"

	"github.com/ententehq/entente/vaultca/vault"
)

// PolicyFor selects the rights to print.
type PolicyFor struct {
	Mount string
	// Prefix begins the names of the keys. If empty, it is [DefaultKeyPrefix].
	Prefix, Cluster string
	// Member is the owner of the keys. If empty, the policy reaches the keys of all members of the cluster.
	Member string
	// Wrapping selects the rights of a [Wrapper] instead of those of a [Store].
	Wrapping bool
}

// Rights returns exactly the rights that a [Store], or a [Wrapper], uses. Vault's patterns end with the name, so one
// rule covers making, reading and deleting; its parameters allow no key that can leave Vault.
func Rights(p PolicyFor) []vault.Right {
	if p.Wrapping {
		return wrappingRights(p)
	}
	prefix := KeyPrefix(p.Prefix, p.Cluster, p.Member)
	return []vault.Right{
		{
			Path: p.Mount + "/keys/" + prefix + "*", Capabilities: `"update", "read", "delete"`,
			Why: "Make signing keys that cannot leave Vault, check that they are still there, and delete those " +
				"that are done with.",
			Allowed: []string{
				fmt.Sprintf(`"type"                   = [%q]`, keyType),
				`"exportable"             = [false]`,
				`"allow_plaintext_backup" = [false]`,
				`"deletion_allowed"       = [true]`,
			},
		},
		{
			Path: p.Mount + "/sign/" + prefix + "*", Capabilities: `"update"`,
			Why: "Sign with them.",
			Allowed: []string{
				`"input"                = []`,
				`"prehashed"            = [true]`,
				`"hash_algorithm"       = ["sha2-256"]`,
				`"marshaling_algorithm" = ["asn1"]`,
				fmt.Sprintf(`"key_version"          = [%q]`, keyVersion),
			},
		},
	}
}

// PolicyFor returns the rights that the configuration needs.
func (c Config) PolicyFor() PolicyFor {
	return PolicyFor{Mount: c.Mount, Prefix: c.Prefix, Cluster: c.Cluster, Member: c.Member}
}
