package acceptance

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// What somebody else changes between plan and apply is reported with both versions, and not overwritten or deleted.
func TestChangeBetweenPlanAndApply(t *testing.T) {
	w := newWorkspace(t)
	c := w.administrator()
	domain := func(ttl string) string {
		return `
resource "entente_trust_domain" "x" {
  trust_domain  = "conflict.example.org"
  x509_svid_ttl = "` + ttl + `"

  deletion_protection = false
}
`
	}
	w.apply(domain("30m"))
	first, err := c.Domains().GetDomain(t.Context(), &ententev1.GetDomainRequest{TrustDomain: "conflict.example.org"})
	require.NoError(t, err)
	change := func(ttl time.Duration) *ententev1.Domain {
		is, err := c.Domains().UpdateDomain(t.Context(), &ententev1.UpdateDomainRequest{
			Domain:     &ententev1.Domain{TrustDomain: "conflict.example.org", X509SvidTtl: durationpb.New(ttl)},
			UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"x509_svid_ttl"}},
		})
		require.NoError(t, err)
		return is
	}
	for _, c := range []struct {
		plan []string
		hcl  string
		ttl  time.Duration
		verb string
	}{
		{[]string{"plan"}, domain("40m"), 50 * time.Minute, "update"},
		{[]string{"plan", "-destroy"}, domain("40m"), 51 * time.Minute, "delete"},
	} {
		plan := filepath.Join(w.dir, "plan")
		w.configure(c.hcl)
		status, out := w.terraform(append(c.plan, "-no-color", "-out", plan)...)
		require.Zero(t, status, out)
		is := change(c.ttl)
		require.NotEqual(t, first.GetEtag(), is.GetEtag())
		refused := w.refused(c.hcl, "apply", "-auto-approve", plan)
		require.Contains(t, refused, "Could not "+c.verb+" trust domain conflict.example.org, because somebody else")
		require.Contains(t, refused, "and it is in generation "+is.GetEtag())
		require.Contains(t, refused, "Plan again")
	}
	is, err := c.Domains().GetDomain(t.Context(), &ententev1.GetDomainRequest{TrustDomain: "conflict.example.org"})
	require.NoError(t, err)
	require.Equal(t, 51*time.Minute, is.GetX509SvidTtl().AsDuration())
	w.apply(domain("40m"))
	w.destroy()
}

// The instances of a service are replaced together, and so are refused together if somebody has changed one of them
// between plan and apply.
func TestServiceChangesBetweenPlanAndApply(t *testing.T) {
	w := newWorkspace(t)
	c := w.administrator()
	service := func(weight string) string {
		return `
resource "entente_service" "x" {
  name = "conflict"
  instances = [
    { address = "10.9.8.1:443", spiffe_id = "spiffe://dev.example.org/x", locality = { region = "r", zone = "z" } },
    { address = "10.9.8.2:443", spiffe_id = "spiffe://dev.example.org/x", locality = { region = "r", zone = "z" },
      weight = ` + weight + ` },
  ]
}
`
	}
	w.apply(service("2"))
	weight := uint32(10)
	for verb, args := range map[string][]string{"update": {"plan"}, "delete": {"plan", "-destroy"}} {
		plan := filepath.Join(w.dir, "plan")
		w.configure(service("3"))
		status, out := w.terraform(append(args, "-no-color", "-out", plan)...)
		require.Zero(t, status, out)
		weight++
		_, err := c.Routing().RegisterInstance(t.Context(), &ententev1.RegisterInstanceRequest{
			Instance: &ententev1.Instance{
				Service: "conflict", Address: "10.9.8.1:443", SpiffeId: "spiffe://dev.example.org/x", Weight: weight,
				Locality: &ententev1.Locality{Region: "r", Zone: "z"},
			},
		})
		require.NoError(t, err)
		refused := w.refused(service("3"), "apply", "-auto-approve", plan)
		require.Contains(t, refused, "Could not "+verb+" service conflict, because somebody else changed it")
		require.Contains(t, refused, "Plan again")
	}
	is, err := c.Routing().GetService(t.Context(), &ententev1.GetServiceRequest{Name: "conflict"})
	require.NoError(t, err)
	require.Len(t, is.GetInstances(), 2)
	require.Equal(t, weight, is.GetInstances()[0].GetWeight())
	w.apply(service("3"))
	w.destroy()
}

// A resource that exists already is not taken over: it is imported.
func TestCreateOfWhatExists(t *testing.T) {
	w := newWorkspace(t)
	c := w.administrator()
	_, err := c.Routing().PutRules(t.Context(), &ententev1.PutRulesRequest{
		Rules: []*ententev1.RoutingRule{{Service: "taken", Stale: "keep"}},
	})
	require.NoError(t, err)
	out := w.refused(`
resource "entente_routing_rule" "taken" {
  service = "taken"
  stale   = "drop"
}
`, "apply", "-auto-approve")
	require.Contains(t, out, "Could not create routing rule taken")
	require.True(t, strings.Contains(out, "terraform import"), out)
	rule, err := c.Routing().GetRule(t.Context(), &ententev1.GetRuleRequest{Service: "taken"})
	require.NoError(t, err)
	require.Equal(t, "keep", rule.GetStale())
}
