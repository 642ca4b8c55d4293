package config

import (
	"fmt"
	"net/mail"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclwrite"

	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/bundle/webcert"
)

var (
	endpointSchema = &hcl.BodySchema{
		Attributes: []hcl.AttributeSchema{{Name: "listen"}, {Name: "advertise"}, {Name: "refresh_hint"}},
		Blocks:     []hcl.BlockHeaderSchema{{Type: "profile", LabelNames: []string{"name"}}},
	}
	webProfileSchema = &hcl.BodySchema{
		Attributes: []hcl.AttributeSchema{{Name: "cert_file"}, {Name: "key_file"}, {Name: "roots_file"}},
		Blocks:     []hcl.BlockHeaderSchema{{Type: "acme"}},
	}
	acmeSchema = blockSchema{
		required: []string{"hosts", "agree_to_terms"},
		optional: []string{"directory", "email", "ca_file", "eab_key_id", "eab_hmac_key"},
	}
)

// ACME configures the ACME server that issues the endpoint's web certificates.
type ACME struct {
	Directory string   // https URL
	Email     string   // optional
	Hosts     []string // at least one
	CAFile    string   // PEM; if empty, the roots of the system
	EABKeyID  string   // if empty, the account has no external binding
	EABKey    Secret
}

func (d *decoder) bundleEndpoint(cfg *Config) {
	e := &cfg.BundleEndpoint
	e.Profile = ProfileSPIFFE
	b, profiles := d.top("bundle_endpoint", endpointSchema)
	e.Listen = b.hostPort("listen", defaultBundleListen)
	e.Advertise = b.hostPort("advertise", "")
	e.RefreshHint = b.duration("refresh_hint", max(5*time.Minute, cfg.Federation.MinRefresh),
		cfg.Federation.MinRefresh, 24*time.Hour)
	if len(profiles) == 0 {
		within(b.out, "profile", string(e.Profile))
	}
	for i, pb := range profiles {
		e.Profile = Profile(pb.Labels[0])
		switch {
		case i > 0:
			d.refuse(pb.DefRange, "bundle_endpoint has two profiles; an endpoint serves one")
			return
		case e.Profile == ProfileSPIFFE:
			d.open(fmt.Sprintf("bundle_endpoint.profile %q", e.Profile), within(b.out, "profile", string(e.Profile)),
				pb.Body, blockSchema{}.hcl())
		case e.Profile == ProfileWeb:
			d.webProfile(e, pb, within(b.out, "profile", string(e.Profile)))
		default:
			d.refuse(pb.LabelRanges[0], "%q is not an endpoint profile; write %q or %q", e.Profile, ProfileSPIFFE,
				ProfileWeb)
			return
		}
	}
}

// webProfile decodes the source of the web certificate: two files, or an ACME server.
func (d *decoder) webProfile(e *BundleEndpoint, pb *hcl.Block, out *hclwrite.Body) {
	p, nested := d.open(fmt.Sprintf("bundle_endpoint.profile %q", ProfileWeb), out, pb.Body, webProfileSchema)
	e.CertFile, e.KeyFile = p.path("cert_file"), p.path("key_file")
	e.RootsFile = p.path("roots_file")
	_, cert := p.attrs["cert_file"]
	_, key := p.attrs["key_file"]
	switch {
	case len(nested) > 1:
		d.refuse(nested[1].DefRange, "%s has two acme blocks; an endpoint uses one ACME server", p.name)
	case len(nested) == 1 && (cert || key):
		d.refuse(nested[0].DefRange, "%s has both acme and certificate files; write acme, or cert_file and "+
			"key_file",
			p.name)
	case len(nested) == 1:
		d.acme(e, nested[0], within(out, "acme"))
	case !cert && !key:
		d.refuse(pb.DefRange, "%s needs a certificate; write cert_file and key_file, or an acme block", p.name)
	case !cert || !key:
		d.refuse(pb.DefRange, "%s needs cert_file and key_file together", p.name)
	}
}

func (d *decoder) acme(e *BundleEndpoint, hb *hcl.Block, out *hclwrite.Body) {
	b, _ := d.open("bundle_endpoint.profile.acme", out, hb.Body, acmeSchema.hcl())
	a := &ACME{
		Directory: b.text("directory", webcert.DefaultACMEDirectory), Email: b.text("email", ""),
		CAFile: b.text("ca_file", ""), EABKeyID: b.text("eab_key_id", ""),
	}
	if err := webcert.CheckACMEDirectory(a.Directory); err != nil {
		b.refuse("directory", "%v", err)
	}
	if parsed, err := mail.ParseAddress(a.Email); a.Email != "" && (err != nil || parsed.Address != a.Email) {
		b.refuse("email", "%q is not a mail address; write one such as %q, or leave it out", a.Email, "ops@example.org")
	}
	for _, host := range b.texts("hosts") {
		host = strings.ToLower(host)
		if !endpoint.IsHostName(host) {
			b.refuse("hosts", "%q is not a host name for an endpoint; write one such as %q, without wildcard, port "+
				"or address",
				host, "bundle.example.org")
		}
		a.Hosts = append(a.Hosts, host)
	}
	if len(a.Hosts) > webcert.MaxACMEHosts {
		b.refuse("hosts", "%d are too many; an endpoint has at most %d", len(a.Hosts), webcert.MaxACMEHosts)
	}
	if _, given := b.attrs["agree_to_terms"]; given && !b.boolean("agree_to_terms", true) {
		b.refuse("agree_to_terms", "an ACME server issues certificates only to those who agree to its terms; "+
			"read them and write true, or use cert_file and key_file")
	}
	_, id := b.attrs["eab_key_id"]
	_, key := b.attrs["eab_hmac_key"]
	if id != key {
		b.refuse("eab_key_id", "requires eab_hmac_key, and eab_hmac_key requires it; the operator of the ACME server "+
			"provides both")
	}
	if key {
		a.EABKey = b.secret("eab_hmac_key")
	}
	e.ACME = a
}
