package acceptance

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/client"
)

// document returns the bundle document of a trust domain with one root.
func document(t testing.TB, domain string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		URIs: []*url.URL{{Scheme: "spiffe", Host: domain}},
	}
	der, err := x509.CreateCertificate(rand.Reader, root, root, &key.PublicKey, key)
	require.NoError(t, err)
	point, err := key.PublicKey.ECDH()
	require.NoError(t, err)
	raw := point.Bytes()[1:]
	x, y := base64.RawURLEncoding.EncodeToString(raw[:32]), base64.RawURLEncoding.EncodeToString(raw[32:])
	return fmt.Sprintf(`{"keys":[{"use":"x509-svid","kty":"EC","crv":"P-256","x":%q,"y":%q,"x5c":[%q]}],`+
		`"spiffe_sequence":1,"spiffe_refresh_hint":300}`, x, y, base64.StdEncoding.EncodeToString(der))
}

func TestRelationship(t *testing.T) { relationshipLife(newWorkspace(t)) }

// relationshipLife creates, updates and destroys a relationship.
func relationshipLife(w *workspace) {
	t, c := w.TB, w.administrator()
	secret := document(t, "us.example.org")
	file := filepath.Join(w.dir, "bundle.json")
	require.NoError(t, os.WriteFile(file, []byte(secret), 0o600))
	relationship := func(settings string) string {
		return fmt.Sprintf(`
resource "entente_federation_relationship" "us" {
  trust_domain       = "us.example.org"
  url                = "https://127.0.0.1:1/"
  profile            = "https_spiffe"
  endpoint_spiffe_id = "spiffe://us.example.org/entente/bundle-endpoint"
  bootstrap_wo       = file(%q)
%s}
`, file, settings)
	}
	w.apply(relationship(""))
	get := func() *ententev1.Relationship {
		is, err := c.Federation().GetRelationship(t.Context(),
			&ententev1.GetRelationshipRequest{TrustDomain: "us.example.org"})
		require.NoError(t, err)
		return is
	}
	first := get()
	require.EqualValues(t, 1, first.GetSequence())
	require.NotContains(t, fmt.Sprint(w.state("entente_federation_relationship.us")), "x5c",
		"the state has the bundle")

	// Settings change in place, the nested ones too, and an attribute that is left out has no value again.
	w.apply(relationship(`
  poll_interval = "60s"
  fallback_urls = ["https://127.0.0.1:2/"]
  hub           = { include = [".example.net"] }
`))
	is := get()
	require.Equal(t, time.Minute, is.GetPollInterval().AsDuration())
	require.Equal(t, []string{".example.net"}, is.GetHub().GetInclude())
	require.Equal(t, first.GetCreateTime().AsTime(), is.GetCreateTime().AsTime(), "it was replaced")
	w.apply(relationship(""))
	is = get()
	require.Nil(t, is.GetPollInterval())
	require.Nil(t, is.GetHub())
	require.Empty(t, is.GetFallbackUrls())

	// A bootstrap bundle is sent again with a new version alone.
	second := strings.Replace(secret, `"spiffe_sequence":1`, `"spiffe_sequence":2`, 1)
	require.NoError(t, os.WriteFile(file, []byte(second), 0o600))
	w.unchanged()
	w.apply(relationship("  bootstrap_wo_version = 2\n"))
	require.EqualValues(t, 2, get().GetSequence())

	// What the member refuses is shown at the attribute.
	require.Contains(t, w.refused(relationship("  poll_interval = \"1ms\"\n"), "apply", "-auto-approve"),
		"poll_interval")
	w.configure(relationship("  bootstrap_wo_version = 2\n"))
	w.destroy()
	_, err := c.Federation().GetRelationship(t.Context(),
		&ententev1.GetRelationshipRequest{TrustDomain: "us.example.org"})
	require.ErrorIs(t, err, client.ErrNotFound)
}

// A first bundle that is not accepted in time is a warning with the reason; the relationship stays as it is. A new
// timeout alone changes nothing at the cluster.
func TestFirstBundleThatDoesNotArrive(t *testing.T) {
	w := newWorkspace(t)
	c := w.administrator()
	relationship := func(timeouts string) string {
		return `
resource "entente_federation_relationship" "late" {
  trust_domain = "late.example.org"
  url          = "https://127.0.0.1:1/"
  profile      = "https_web"
  timeouts {
` + timeouts + `
  }
}
`
	}
	out := strings.Join(strings.Fields(strings.ReplaceAll(w.apply(relationship(`create = "10s"`)), "│", " ")), " ")
	require.Contains(t, out, "No bundle of late.example.org was accepted within the timeout of the creation")
	require.Contains(t, out, "connection refused")
	require.Contains(t, out, "nothing has to be applied again")
	get := func() *ententev1.Relationship {
		is, err := c.Federation().GetRelationship(t.Context(),
			&ententev1.GetRelationshipRequest{TrustDomain: "late.example.org"})
		require.NoError(t, err)
		return is
	}
	before := get()
	require.Contains(t, w.plans(relationship(`update = "2m"`)), "0 to add, 1 to change, 0 to destroy")
	w.apply(relationship(`update = "2m"`))
	require.Equal(t, before.GetEtag(), get().GetEtag())
	require.Contains(t, w.refused(relationship(`create = "soon"`), "plan"), "and a unit suffix")
	w.configure(relationship(`delete = "1ns"`))
	status, out := w.terraform("apply", "-auto-approve", "-no-color")
	require.Zero(t, status, out)
	require.Contains(t, w.refused("", "apply", "-auto-approve"), "A timeouts block in the resource gives it more time")
	w.apply(relationship(`delete = "1m"`))
	w.destroy()
}

// What the server would refuse is refused by the plan, with the attribute and the remedy.
func TestRefusedPlans(t *testing.T) {
	w := newWorkspace(t)
	for hcl, want := range map[string]string{
		`resource "entente_trust_domain" "x" { trust_domain = "x.example.org." }`:         `write "x.example.org"`,
		`resource "entente_trust_domain" "x" { trust_domain = "spiffe://x.example.org" }`: "trust_domain",
		`resource "entente_trust_domain" "x" {
			trust_domain  = "x.example.org"
			x509_svid_ttl = "soon"
		}`: "x509_svid_ttl",
		`resource "entente_federation_relationship" "x" {
			trust_domain = "x.example.org"
			url          = "https://x.example.org/"
			profile      = "https"
		}`: `value must be one of: ["https_spiffe" "https_web"]`,
		`resource "entente_federation_relationship" "x" {
			trust_domain = "x.example.org"
			url          = "http://x.example.org/"
			profile      = "https_web"
		}`: `has scheme "http"; https is needed; write https://HOST[:PORT][/PATH]`,
		`resource "entente_trust_domain" "x" {
			trust_domain  = "x.example.org"
			endpoint_host = "*.example.org"
		}`: "it is not a DNS name",
		`resource "entente_trust_domain" "x" {
			trust_domain = "x.example.org"
			oidc_issuer  = "http://x.example.org"
		}`: "the URL of an OpenID Connect issuer",
		`resource "entente_access_grant" "x" {
			role      = "reader"
			spiffe_id = "x.example.org/reader"
		}`: "spiffe_id",
		`resource "entente_routing_rule" "x" {
			service      = "x"
			distribution = [{ from = "eu", to = { "eu" = 60, "us" = 30 } }]
		}`: "distribution from eu: the percentages add up to 90; they must add up to 100",
		`resource "entente_routing_rule" "x" {
			service  = "x"
			failover = [{ from = "eu", to = ["eu"] }]
		}`: "failover",
		`resource "entente_routing_rule" "x" { service = "X" }`: "service",
		`resource "entente_routing_rule" "x" { service = "x" }`: "it is empty",
		`resource "entente_service_export" "x" {
			service    = "x"
			name       = "x"
			to         = "us.example.org"
			localities = ["eu/a/b/c"]
		}`: "write REGION, REGION/ZONE or REGION/ZONE/SUB-ZONE",
		`resource "entente_service_import" "x" {
			service = "x"
			name    = "not a name"
			from    = "us.example.org"
		}`: "the name of a service",
		instanceAt(`"x.example.org:443"`, `{ region = "eu", zone = "a" }`):           "write an IP literal and a port",
		instanceAt(`"10.0.0.1:443"`, `{ region = "eu/a", zone = "b" }`):              "a part contains a slash",
		instanceAt(`"10.0.0.1:443"`, `{ region = "eu", zone = "a", sub_zone = "" }`): "",
		`resource "entente_service" "x" {
			name      = "x"
			instances = []
		}`: "a service is its instances; name at least one",
	} {
		if want == "" {
			w.plans(hcl)
			continue
		}
		require.Contains(t, w.refused(hcl, "plan"), want, hcl)
	}
	// A value that is not known yet is left to the server.
	w.plans(`
resource "terraform_data" "later" { input = "10.0.0.1" }
` + instanceAt(`"${terraform_data.later.output}:443"`, `{ region = terraform_data.later.output, zone = "a" }`))
}

func instanceAt(address, locality string) string {
	return fmt.Sprintf(`resource "entente_service_instance" "x" {
	service   = "x"
	address   = %s
	spiffe_id = "spiffe://dev.example.org/x"
	locality  = %s
}`, address, locality)
}

// A trust domain has one agreement: a plan with two resources for it is refused, whichever they are, unless the domain
// is not known yet.
func TestOneAgreementForATrustDomain(t *testing.T) {
	w := newWorkspace(t)
	const direct = `
resource "entente_federation_relationship" "x" {
	trust_domain = "one.example.org"
	url          = "https://one.example.org/"
	profile      = "https_web"
}
`
	accepted := func(td string) string {
		return `
resource "entente_federation_agreement" "x" {
	trust_domain = ` + td + `
	token_wo     = "t"
}
`
	}
	const invited = `
ephemeral "entente_secret" "x" {}
resource "entente_federation_invitation" "x" {
	trust_domain         = "dev.example.org"
	foreign_trust_domain = "one.example.org"
	secret_wo            = ephemeral.entente_secret.x.value
}
`
	for _, both := range []string{
		direct + accepted(`"one.example.org"`), direct + invited, accepted(`"one.example.org"`) + invited,
	} {
		refused := w.refused(both, "plan")
		require.Contains(t, refused, "Could not plan two resources for the agreement with one.example.org")
		require.Contains(t, refused, "A trust domain has one of entente_federation_relationship, "+
			"entente_federation_invitation and entente_federation_agreement: remove the others.")
	}
	w.plans(direct + accepted(`"two.example.org"`))
	w.plans(`
resource "terraform_data" "later" { input = "one.example.org" }
` + direct + accepted("terraform_data.later.output"))
}
