package acceptance

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/client"
)

func TestTrustDomain(t *testing.T) { trustDomainLife(newWorkspace(t)) }

// trustDomainLife creates, updates, imports and destroys a trust domain.
func trustDomainLife(w *workspace) {
	t, c := w.TB, w.administrator()
	const domain = `
resource "entente_trust_domain" "shop" {
  trust_domain        = "shop.example.org"
  x509_svid_ttl       = "90m"
  deletion_protection = false
}
`
	w.apply(domain)
	state := w.state("entente_trust_domain.shop")
	require.Equal(t, "90m", state["x509_svid_ttl"], "as it was written")
	require.NotEmpty(t, state["ca_ttl"], "the server's default")
	require.Equal(t, false, state["home"])

	// Durations are compared by their value.
	w.configure(strings.Replace(domain, "90m", "1h30m", 1))
	w.unchanged()

	// A change by somebody else is seen, and put right.
	is, err := c.Domains().UpdateDomain(t.Context(), &ententev1.UpdateDomainRequest{
		Domain:     &ententev1.Domain{TrustDomain: "shop.example.org", X509SvidTtl: durationpb.New(30 * time.Minute)},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"x509_svid_ttl"}},
	})
	require.NoError(t, err)
	require.Equal(t, 30*time.Minute, is.GetX509SvidTtl().AsDuration())
	require.Contains(t, w.plans(domain), `"30m0s" -> "90m"`)
	w.apply(domain)
	is, err = c.Domains().GetDomain(t.Context(), &ententev1.GetDomainRequest{TrustDomain: "shop.example.org"})
	require.NoError(t, err)
	require.Equal(t, 90*time.Minute, is.GetX509SvidTtl().AsDuration())

	// It is imported by its name.
	other := newSibling(w)
	other.configure(domain)
	status, out := other.terraform("import", "-no-color", "entente_trust_domain.shop", "shop.example.org")
	require.Zero(t, status, out)
	other.unchanged()

	// What is deleted elsewhere is made again; what is destroyed is gone.
	_, err = c.Domains().DeleteDomain(t.Context(), &ententev1.DeleteDomainRequest{TrustDomain: "shop.example.org"})
	require.NoError(t, err)
	require.Contains(t, w.plans(domain), "1 to add")
	w.apply(domain)
	w.destroy()
	_, err = c.Domains().GetDomain(t.Context(), &ententev1.GetDomainRequest{TrustDomain: "shop.example.org"})
	require.ErrorIs(t, err, client.ErrNotFound)
}

// A trust domain is protected from deletion unless the configuration says otherwise: a plan refuses to destroy it, and
// so does the cluster. The home domain is imported, and never destroyed.
func TestDeletionProtection(t *testing.T) {
	w := newWorkspace(t)
	c := w.administrator()
	domain := func(settings string) string {
		return `
resource "entente_trust_domain" "kept" {
  trust_domain = "kept.example.org"
` + settings + `}
`
	}
	w.apply(domain(""))
	require.Equal(t, true, w.state("entente_trust_domain.kept")["deletion_protection"])
	_, err := c.Domains().DeleteDomain(t.Context(), &ententev1.DeleteDomainRequest{TrustDomain: "kept.example.org"})
	require.ErrorIs(t, err, client.ErrDeletionProtected)
	for _, hcl := range []string{"", strings.Replace(domain(""), "kept.example.org", "other.example.org", 1)} {
		out := w.refused(hcl, "apply", "-auto-approve")
		require.Contains(t, out, "Could not plan to delete trust domain kept.example.org, because it is protected")
		require.Contains(t, out, "Set it to false and apply")
	}
	w.apply(domain("  deletion_protection = false\n"))
	w.destroy()

	home := newSibling(w)
	home.configure(`
resource "entente_trust_domain" "home" { trust_domain = "dev.example.org" }
`)
	status, out := home.terraform("import", "-no-color", "entente_trust_domain.home", "dev.example.org")
	require.Zero(t, status, out)
	home.unchanged()
	require.Contains(t, home.refused("", "apply", "-auto-approve"), "It is the home domain, which names the members")
}
