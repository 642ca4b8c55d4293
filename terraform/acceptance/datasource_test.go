package acceptance

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

// Data sources and functions read what the cluster has, and change nothing.
func TestDataSourcesAndFunctions(t *testing.T) { dataSourcesAndFunctions(newWorkspace(t)) }

func dataSourcesAndFunctions(w *workspace) {
	t := w.TB
	w.configure(`
data "entente_bundle" "home" { trust_domain = "dev.example.org" }
data "entente_trust_domain" "home" { trust_domain = "dev.example.org" }
data "entente_trust_domains" "all" {}
data "entente_federation_relationships" "all" {}
data "entente_cluster" "this" {}
data "entente_authorities" "home" { trust_domain = "dev.example.org" }
locals {
  parsed = provider::entente::parse_bundle("dev.example.org", data.entente_bundle.home.document)
}
output "all" {
  value = {
    home    = data.entente_trust_domain.home.home
    domains = contains(data.entente_trust_domains.all.domains[*].trust_domain, "dev.example.org")
    leaders = length([for m in data.entente_cluster.this.members : m if m.leader])
    states  = toset(data.entente_authorities.home.authorities[*].state)
    roots   = local.parsed.x509_authorities
    same    = local.parsed.pem == provider::entente::bundle_to_pem("dev.example.org", data.entente_bundle.home.document)
    path    = provider::entente::parse_spiffe_id("spiffe://dev.example.org/web/1").path
  }
}
`)
	status, out := w.terraform("apply", "-auto-approve", "-no-color")
	require.Zero(t, status, out)
	status, out = w.terraform("output", "-json", "all")
	require.Zero(t, status, out)
	var all struct {
		Home, Domains, Same bool
		Leaders, Roots      int
		States              []string
		Path                string
	}
	require.NoError(t, json.Unmarshal([]byte(out), &all), out)
	require.True(t, all.Home)
	require.True(t, all.Domains)
	require.True(t, all.Same)
	require.Equal(t, 1, all.Leaders)
	require.NotZero(t, all.Roots)
	require.Contains(t, all.States, "active")
	require.Equal(t, "/web/1", all.Path)
	require.Contains(t, w.refused(`
output "id" { value = provider::entente::parse_spiffe_id("https://dev.example.org/web") }
`, "plan"), `Invalid value for "id" parameter`)
	require.Contains(t, w.refused(`
data "entente_bundle" "x" { trust_domain = "unknown.example.org" }
`, "plan"), "Could not read the bundle")
}
