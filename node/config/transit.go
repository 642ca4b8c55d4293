package config

import (
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclwrite"

	"github.com/ententehq/entente/vaultca/transit"
)

// The settings of `keys "vault_transit"`: the place and the names of the keys, and the connection to Vault, which is
// that of `upstream "vault"` if there is one.
var (
	transitOwn        = []string{"mount", "key_prefix"}
	transitConnection = []string{"address", "namespace", "ca_file", "server_name", "plain_loopback"}
)

func transitSchema() *hcl.BodySchema {
	schema := blockSchema{optional: append(append([]string{}, transitOwn...), transitConnection...)}.hcl()
	schema.Blocks = []hcl.BlockHeaderSchema{{Type: "auth", LabelNames: []string{"method"}}}
	return schema
}

// transitBlock decodes a block that names keys in Transit, after the upstream. It returns nil after a mistake.
func (d *decoder) transitBlock(cfg *Config, hb *hcl.Block, name string, out *hclwrite.Body) *transit.Config {
	b, logins := d.open(name, out, hb.Body, transitSchema())
	t := &transit.Config{
		Mount:  strings.Trim(b.text("mount", transit.DefaultMount), "/"),
		Prefix: b.text("key_prefix", transit.DefaultKeyPrefix), Cluster: cfg.Cluster.Name, Member: cfg.Member.ID,
	}
	if up, ok := d.found["upstream"]; ok && up.Labels[0] == "vault" {
		for _, setting := range transitConnection {
			if _, given := b.attrs[setting]; given {
				b.refuse(setting, "the keys use the connection of upstream \"vault\"; leave it out here")
			}
		}
		for _, auth := range logins {
			d.refuse(auth.DefRange, "%s: the keys use the login of upstream \"vault\"; leave auth out here",
				name)
		}
		if cfg.Vault == nil {
			return nil // its mistakes are reported already
		}
		t.Vault = cfg.Vault.Config
	} else {
		if _, given := b.attrs["address"]; !given {
			d.refuse(hb.DefRange, "%s: without an upstream \"vault\", the keys need a connection of their "+
				"own; "+
				"set address and auth here", name)
			return nil
		}
		t.Vault = b.vaultConnection()
		for _, inner := range logins {
			if t.Vault.Auth != nil {
				d.refuse(inner.DefRange, "%s has two auth blocks; a member logs in by one", name)
				continue
			}
			t.Vault.Auth = d.vaultAuth(inner, out)
		}
	}
	if d.diags.HasErrors() {
		return nil
	}
	if err := t.Validate(); err != nil {
		d.refuse(hb.DefRange, "%s: %s", name, strings.ReplaceAll(err.Error(), "\n", "; "))
		return nil
	}
	return t
}

// transitFolder holds the index of the keys in Transit, in the data folder.
const transitFolder = "transit"
