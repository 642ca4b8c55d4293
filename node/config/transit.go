package config

import (
	"path/filepath"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/ententehq/entente/vaultca/transit"
)

// The settings of `keys "vault_transit"`: the place and the names of the keys, and the connection to Vault, which is
// that of `upstream "vault"` if there is one.
var (
	transitOwn        = []string{"mount", "key_prefix"}
	transitConnection = []string{"address", "namespace", "ca_file", "server_name"}
)

// transit decodes `keys "vault_transit"`, after the upstream.
func (d *decoder) transit(cfg *Config, hb *hcl.Block) {
	const name = `keys "vault_transit"`
	schema := blockSchema{optional: append(append([]string{}, transitOwn...), transitConnection...)}.hcl()
	schema.Blocks = []hcl.BlockHeaderSchema{{Type: "auth", LabelNames: []string{"method"}}}
	content, diags := hb.Body.Content(schema)
	d.diags = append(d.diags, diags...)
	b := &block{name: "authority." + name, attrs: content.Attributes, missing: content.MissingItemRange,
		diags: &d.diags}
	t := &transit.Config{
		Mount:  strings.Trim(b.text("mount", transit.DefaultMount), "/"),
		Prefix: b.text("key_prefix", transit.DefaultKeyPrefix), Cluster: cfg.Cluster.Name, Member: cfg.Member.ID,
		Dir: filepath.Join(cfg.Member.DataDir, transitFolder),
	}
	if up, ok := d.found["upstream"]; ok && up.Labels[0] == "vault" {
		for _, setting := range transitConnection {
			if _, given := b.attrs[setting]; given {
				b.refuse(setting, "the keys use the connection of upstream \"vault\"; leave it out here")
			}
		}
		for _, auth := range content.Blocks {
			d.refuse(auth.DefRange, "authority.%s: the keys use the login of upstream \"vault\"; leave auth out here",
				name)
		}
		if cfg.Vault == nil {
			return // its mistakes are reported already
		}
		t.Vault = cfg.Vault.Config
	} else {
		if _, given := b.attrs["address"]; !given {
			d.refuse(hb.DefRange, "authority.%s: without an upstream \"vault\", the keys need a connection of their "+
				"own; "+
				"set address and auth here", name)
			return
		}
		t.Vault = b.vaultConnection()
		for _, inner := range content.Blocks {
			if t.Vault.Auth != nil {
				d.refuse(inner.DefRange, "authority.%s has two auth blocks; a member logs in by one", name)
				continue
			}
			t.Vault.Auth = d.vaultAuth(inner)
		}
	}
	if d.diags.HasErrors() {
		return
	}
	if err := t.Validate(); err != nil {
		d.refuse(hb.DefRange, "authority.%s: %s", name, strings.ReplaceAll(err.Error(), "\n", "; "))
		return
	}
	cfg.Transit = t
}

// transitFolder holds the index of the keys in Transit, in the data folder.
const transitFolder = "transit"
