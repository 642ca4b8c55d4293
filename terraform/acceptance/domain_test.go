package acceptance

import (
	"testing"

	"github.com/stretchr/testify/require"

	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/client"
)

// administrator returns a client with the rights of the local administrator.
func administrator(t *testing.T) *client.Client {
	t.Helper()
	c, err := client.New(t.Context(), client.WithAdminSocket(member.Socket))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

func TestTrustDomain(t *testing.T) {
	w, c := newWorkspace(t), administrator(t)
	const domain = `
resource "entente_trust_domain" "shop" {
  trust_domain  = "shop.example.org"
  x509_svid_ttl = "90m"
}
`
	w.apply(domain)
	state := w.state("entente_trust_domain.shop")
	require.Equal(t, "90m", state["x509_svid_ttl"], "as it was written")
	require.NotEmpty(t, state["ca_ttl"], "the server's default")
	require.Equal(t, false, state["home"])

	// Durations are compared by their value.
	w.configure(`
resource "entente_trust_domain" "shop" {
  trust_domain  = "shop.example.org"
  x509_svid_ttl = "1h30m"
}
`)
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
