package config

import (
	"fmt"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/ententehq/entente/authority/upstream"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/vaultca"
	"github.com/ententehq/entente/vaultca/vault"
)

// vaultMountSettings name the PKI mount that signs for a domain. The upstream block holds those of the home domain, and
// a domain block those of each other hosted domain.
var vaultMountSettings = []hcl.AttributeSchema{{Name: "pki_mount", Required: true}, {Name: "issuers"},
	{Name: "anchors"}}

var (
	vaultSchema = &hcl.BodySchema{
		Attributes: append([]hcl.AttributeSchema{
			{Name: "address", Required: true}, {Name: "namespace"}, {Name: "ca_file"}, {Name: "server_name"},
			{Name: "plain_loopback"}, {Name: "anchor_approval"},
		}, vaultMountSettings...),
		Blocks: []hcl.BlockHeaderSchema{
			{Type: "auth", LabelNames: []string{"method"}}, {Type: "domain", LabelNames: []string{"name"}},
		},
	}
	vaultDomainSchema = &hcl.BodySchema{Attributes: vaultMountSettings}
	vaultAuthSchemas  = map[string]blockSchema{
		"token":      {required: []string{"token"}},
		"approle":    {required: []string{"role_id", "secret_id"}, optional: []string{"mount"}},
		"kubernetes": {required: []string{"role"}, optional: []string{"mount", "token_file"}},
		"cert":       {required: []string{"cert_file", "key_file"}, optional: []string{"mount", "role"}},
	}
)

// vault decodes `upstream "vault"`.
func (d *decoder) vault(cfg *Config, hb *hcl.Block) {
	b, nested := d.top("upstream", vaultSchema, "vault")
	v := &vaultca.Config{
		Config: b.vaultConnection(),
		Mounts: map[spiffeid.TrustDomain]vaultca.Mount{cfg.Cluster.TrustDomain: b.vaultMount()},
	}
	approval := b.boolean("anchor_approval", false)
	for _, inner := range nested {
		switch inner.Type {
		case "auth":
			if v.Auth != nil {
				d.refuse(inner.DefRange, "upstream \"vault\" has two auth blocks; a member logs in by one")
				continue
			}
			v.Auth = d.vaultAuth(inner, b.out)
		case "domain":
			d.vaultDomain(v, inner, b.out)
		}
	}
	if d.diags.HasErrors() {
		return
	}
	if err := v.Validate(); err != nil {
		d.refuse(hb.DefRange, "upstream \"vault\": %s", strings.ReplaceAll(err.Error(), "\n", "; "))
		return
	}
	v.Sample = func(td spiffeid.TrustDomain) (upstream.Sample, error) {
		return upstream.SampleOf(td, cfg.Cluster.TrustDomain, cfg.Member.ID, cfg.Member.Advertise, cfg.Cluster.DNSName)
	}
	cfg.Vault, cfg.AnchorApproval = v, approval
}

// vaultConnection decodes where Vault is. The way to log in is a block of its own.
func (b *block) vaultConnection() vault.Config {
	return vault.Config{
		Address: b.text("address", ""), Namespace: b.text("namespace", ""),
		CAFile: b.text("ca_file", ""), ServerName: b.text("server_name", ""),
		PlainLoopback: b.boolean("plain_loopback", false),
	}
}

func (b *block) vaultMount() vaultca.Mount {
	m := vaultca.Mount{Path: strings.Trim(b.text("pki_mount", ""), "/"), Issuers: b.texts("issuers")}
	if anchors := b.text("anchors", ""); anchors != "" {
		file, ok := strings.CutPrefix(anchors, "file:")
		if !ok {
			b.refuse("anchors", "%q does not name a file; write \"file:PATH\"", anchors)
		}
		m.AnchorsFile = file
	}
	return m
}

func (d *decoder) vaultDomain(v *vaultca.Config, hb *hcl.Block, out *hclwrite.Body) {
	td, err := bundle.ParseHostedTrustDomain(hb.Labels[0])
	if err != nil {
		d.refuse(hb.LabelRanges[0], "%v", err)
		return
	}
	if _, twice := v.Mounts[td]; twice {
		d.refuse(hb.LabelRanges[0], "%s already has a mount; that of the home domain is in the upstream block itself",
			td.Name())
		return
	}
	b, _ := d.open(fmt.Sprintf("domain %q", td.Name()), within(out, "domain", td.Name()), hb.Body, vaultDomainSchema)
	v.Mounts[td] = b.vaultMount()
}

func (d *decoder) vaultAuth(hb *hcl.Block, out *hclwrite.Body) vault.Auth {
	method := hb.Labels[0]
	schema, known := vaultAuthSchemas[method]
	if !known {
		d.refuse(hb.LabelRanges[0], "%q is not an auth method; write \"token\", \"approle\", \"kubernetes\" or "+
			"\"cert\"", method)
		return nil
	}
	b, _ := d.open(fmt.Sprintf("auth %q", method), within(out, "auth", method), hb.Body, schema.hcl())
	mount := b.text("mount", "")
	switch method {
	case "token":
		return vault.Token{Token: b.secret("token").Read}
	case "approle":
		return vault.AppRole{Mount: mount, RoleID: b.secret("role_id").Read, SecretID: b.secret("secret_id").Read}
	case "kubernetes":
		return vault.Kubernetes{Mount: mount, Role: b.text("role", ""), TokenFile: b.text("token_file", "")}
	default:
		return vault.Certificate{
			Mount: mount, Role: b.text("role", ""), CertFile: b.path("cert_file"), KeyFile: b.path("key_file"),
		}
	}
}
