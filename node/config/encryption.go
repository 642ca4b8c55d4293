package config

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"github.com/ententehq/entente/vaultca/transit"
)

// KeyEncryption is one block `encryption` of `keys "disk"`: where a wrapping key is.
type KeyEncryption struct {
	Key     Secret          // a key in a file or in the environment; unused if Transit is set
	Transit *transit.Config // a key in Vault; nil if it is Key
}

// The labels of `encryption` blocks.
const (
	encryptionKey     = "key"
	encryptionTransit = "vault_transit"
	encryptionNone    = "none"
)

// keyEncryption decodes the `encryption` blocks of `keys "disk"`, after the upstream. Without any, keys are encrypted
// by Transit if the upstream is Vault, and not at all otherwise.
func (d *decoder) keyEncryption(cfg *Config) {
	if cfg.Authority.Keys != KeysDisk {
		return
	}
	if len(d.encryptions) == 0 {
		if cfg.Vault != nil {
			t := transit.Config{
				Vault: cfg.Vault.Config, Mount: transit.DefaultMount, Prefix: transit.DefaultKeyPrefix,
				Cluster: cfg.Cluster.Name, Member: cfg.Member.ID,
			}
			cfg.Authority.Encryption = []KeyEncryption{{Transit: &t}}
			out := within(d.keysOut, "encryption", encryptionTransit)
			out.SetAttributeValue("mount", cty.StringVal(t.Mount))
			out.SetAttributeValue("key_prefix", cty.StringVal(t.Prefix))
		}
		return
	}
	for i, hb := range d.encryptions {
		name := fmt.Sprintf("authority.keys.encryption %q", hb.Labels[0])
		out := within(d.keysOut, "encryption", hb.Labels[0])
		switch hb.Labels[0] {
		case encryptionNone:
			d.open(name, out, hb.Body, blockSchema{}.hcl())
			if i > 0 {
				d.refuse(hb.DefRange, "%s: only the first encryption applies to new keys, and the others open what "+
					"they wrapped before; write this one first", name)
			}
			cfg.Authority.EncryptionOff = true
		case encryptionKey:
			b, _ := d.open(name, out, hb.Body, wrappingSchema.hcl())
			key := b.secret("key")
			if _, given := b.attrs["key"]; given {
				d.outside(cfg, b, key)
			}
			cfg.Authority.Encryption = append(cfg.Authority.Encryption, KeyEncryption{Key: key})
		case encryptionTransit:
			if t := d.transitBlock(cfg, hb, name, out); t != nil {
				cfg.Authority.Encryption = append(cfg.Authority.Encryption, KeyEncryption{Transit: t})
			}
		default:
			d.refuse(hb.LabelRanges[0], "%q is not a place for a wrapping key; write %q, %q or %q", hb.Labels[0],
				encryptionKey, encryptionTransit, encryptionNone)
		}
	}
}

// outside refuses a wrapping key that a copy of the data folder or of the configuration would contain.
func (d *decoder) outside(cfg *Config, b *block, key Secret) {
	path, isFile := strings.CutPrefix(key.source, "file:")
	if !isFile {
		if !strings.HasPrefix(key.source, "env:") {
			b.refuse("key", "the key must not be in this file; write \"file:PATH\" or \"env:NAME\"")
		}
		return
	}
	absolute, err := filepath.Abs(path)
	if err != nil {
		b.refuse("key", "%v", err)
		return
	}
	if within, err := filepath.Rel(cfg.Member.DataDir, absolute); err == nil && filepath.IsLocal(within) {
		b.refuse("key", "%s is in the data folder, so that whoever has a copy of the folder has the key too; keep it "+
			"elsewhere", path)
	}
}

var (
	keysSchema = &hcl.BodySchema{
		Blocks: []hcl.BlockHeaderSchema{{Type: "encryption", LabelNames: []string{"name"}}},
	}
	wrappingSchema = blockSchema{required: []string{"key"}}
)
