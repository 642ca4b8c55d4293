package acceptance

import (
	"testing"

	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

func TestAccessAndRouting(t *testing.T) { accessAndRouting(newWorkspace(t)) }

// accessAndRouting creates, imports and destroys grants, instances and rules.
func accessAndRouting(w *workspace) {
	t, c := w.TB, w.administrator()
	const all = `
locals { id = "spiffe://dev.example.org/terraform" }
resource "entente_access_grant" "discovery" {
  role         = "discovery"
  spiffe_id    = local.id
  trust_domain = "dev.example.org"
  path_prefix  = "/web"
  services     = ["web"]
}
resource "entente_access_grant" "reader" {
  role      = "reader"
  spiffe_id = local.id
}
resource "entente_service_instance" "web" {
  service   = "web"
  address   = "10.7.0.1:443"
  locality  = { region = "eu", zone = "a" }
  spiffe_id = "spiffe://dev.example.org/web"
  depends_on = [entente_access_grant.discovery]
}
resource "entente_routing_rule" "web" {
  service         = "web"
  panic_threshold = 0
  stale           = "drop"
  failover        = [{ from = "eu", to = ["us", "ap"] }]
  distribution    = [{ from = "eu/a", to = { "eu/a" = 80, "eu/b" = 20 } }]
}
`
	out := w.apply(all)
	require.Contains(t, out, "The cluster warns about routing rule web")
	rule, err := c.Routing().GetRule(t.Context(), &ententev1.GetRuleRequest{Service: "web"})
	require.NoError(t, err)
	require.NotNil(t, rule.PanicThreshold, "0 is a value")
	require.Equal(t, map[string]uint32{"eu/a": 80, "eu/b": 20}, rule.GetDistribution()[0].GetTo())
	grants, err := c.Access().ListGrants(t.Context(), &ententev1.ListGrantsRequest{})
	require.NoError(t, err)
	require.Len(t, ours(grants), 2)

	// Every resource is imported by its ID, and a plan after it is empty.
	other := newSibling(w)
	other.configure(all)
	for address, id := range map[string]string{
		"entente_access_grant.reader":    "reader,spiffe://dev.example.org/terraform,,",
		"entente_access_grant.discovery": "discovery,spiffe://dev.example.org/terraform,dev.example.org,/web",
		"entente_service_instance.web":   "web,10.7.0.1:443",
		"entente_routing_rule.web":       "web",
	} {
		status, out := other.terraform("import", "-no-color", address, id)
		require.Zero(t, status, out)
	}
	other.unchanged()
	w.destroy()
	grants, err = c.Access().ListGrants(t.Context(), &ententev1.ListGrantsRequest{})
	require.NoError(t, err)
	require.Empty(t, ours(grants))
}

// ours returns the grants of the test; other tests use the same member.
func ours(all *ententev1.ListGrantsResponse) (grants []*ententev1.Grant) {
	for _, g := range all.GetGrants() {
		if g.GetSpiffeId() == "spiffe://dev.example.org/terraform" {
			grants = append(grants, g)
		}
	}
	return grants
}
