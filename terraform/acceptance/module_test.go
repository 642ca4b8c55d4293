package acceptance

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/client"
	"github.com/ententehq/entente/node/nodetest"
)

// module returns the path of a module of this repository.
func module(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("..", "modules", name))
	require.NoError(t, err)
	return path
}

// install installs the modules of a configuration. The provider is a local build, so that nothing else is needed.
func (w *workspace) install(hcl string) {
	w.Helper()
	w.configure(hcl)
	status, out := w.terraform("get", "-no-color")
	require.Zero(w, status, out)
}

// One apply federates two clusters in both directions, and each fetches the other's bundle from then on.
func TestFederatedPair(t *testing.T) {
	w := newWorkspace(t)
	clients := map[string]*client.Client{}
	sides := ""
	w.provider = ""
	for name, home := range map[string]string{"a": "eu.example.net", "b": "us.example.net"} {
		m, err := nodetest.StartIn(spiffeid.RequireTrustDomainFromString(home))
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, m.Close()) })
		w.provider += fmt.Sprintf("provider \"entente\" {\n  alias  = %q\n  socket = %q\n}\n", name, m.Socket)
		sides += fmt.Sprintf("  %s = { trust_domain = %q, url = \"https://%s/\" }\n", name, home, m.BundleEndpoint)
		c, err := client.New(t.Context(), client.WithAdminSocket(m.Socket))
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, c.Close()) })
		clients[home] = c
	}
	pair := fmt.Sprintf(`
module "pair" {
  source    = %q
  providers = { entente.a = entente.a, entente.b = entente.b }
%s}
`, module(t, "federated-pair"), sides)
	w.install(pair)
	w.apply(pair)
	for home, other := range map[string]string{"eu.example.net": "us.example.net", "us.example.net": "eu.example.net"} {
		require.Eventually(t, func() bool {
			is, err := clients[home].Federation().RefreshRelationship(t.Context(),
				&ententev1.RefreshRelationshipRequest{TrustDomain: other})
			return err == nil && is.GetLastSuccessTime() != nil
		}, time.Minute, 100*time.Millisecond, "%s fetches the bundle of %s", home, other)
	}
	w.unchanged()
	w.destroy()
	for home := range clients {
		left, err := clients[home].Federation().ListRelationships(t.Context(), &ententev1.ListRelationshipsRequest{})
		require.NoError(t, err)
		require.Empty(t, left.GetRelationships())
	}
}

func TestMeshMember(t *testing.T) {
	w := newWorkspace(t)
	c := w.administrator()
	mesh := func(clusters ...string) string {
		list := ""
		for _, name := range append(clusters, "dev.example.org") {
			list += fmt.Sprintf("    %q = { url = \"https://127.0.0.1:1/\", bundle = %q }\n", name, document(t, name))
		}
		return fmt.Sprintf(`
module "mesh" {
  source       = %q
  trust_domain = "dev.example.org"
  clusters = {
%s  }
}
`, module(t, "mesh-member"), list)
	}
	trusted := func() (names []string) {
		all, err := c.Federation().ListRelationships(t.Context(), &ententev1.ListRelationshipsRequest{})
		require.NoError(t, err)
		for _, r := range all.GetRelationships() {
			if strings.HasSuffix(r.GetTrustDomain(), ".mesh.example") {
				names = append(names, r.GetTrustDomain())
			}
		}
		return names
	}
	first := mesh("one.mesh.example", "two.mesh.example")
	w.install(first)
	w.apply(first)
	require.Equal(t, []string{"one.mesh.example", "two.mesh.example"}, trusted())
	w.apply(mesh("three.mesh.example", "two.mesh.example"))
	require.Equal(t, []string{"three.mesh.example", "two.mesh.example"}, trusted())
	w.destroy()
	require.Empty(t, trusted())
}

func TestRegion(t *testing.T) {
	w := newWorkspace(t)
	c := w.administrator()
	region := fmt.Sprintf(`
module "region" {
  source       = %q
  trust_domain = "region.example.org"
  region       = "eu"
  failover     = ["us", "ap"]

  deletion_protection = false
  issuers      = { "/ci" = "spiffe://dev.example.org/ci" }
  services = {
    checkout = { registrar = "spiffe://dev.example.org/deployer", path_prefix = "/checkout" }
  }
}
`, module(t, "region"))
	w.install(region)
	w.apply(region)
	rule, err := c.Routing().GetRule(t.Context(), &ententev1.GetRuleRequest{Service: "checkout"})
	require.NoError(t, err)
	require.Equal(t, []string{"us", "ap"}, rule.GetFailover()[0].GetTo())
	w.destroy()
	_, err = c.Domains().GetDomain(t.Context(), &ententev1.GetDomainRequest{TrustDomain: "region.example.org"})
	require.ErrorIs(t, err, client.ErrNotFound)
}

// The modules are formatted as terraform formats them.
func TestFormat(t *testing.T) {
	newWorkspace(t)
	out, err := exec.Command(binary, "fmt", "-check", "-recursive", filepath.Join("..")).CombinedOutput()
	require.NoError(t, err, "%s", out)
}
