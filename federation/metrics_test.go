package federation

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/federation/federationtest"
)

// TestMetricsFollowTables tests that every member exports each foreign domain, and none that is not foreign any more.
func TestMetricsFollowTables(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	r := newRoom(t, func(c *Config) { c.Now = func() time.Time { return now } })
	us := federationtest.NewAuthority(t, "us.example.org")
	withBroken := bytes.Replace(us.Bundle(t, 42).Marshal(), []byte(`"keys":[`),
		[]byte(`"keys":[{"kty":"EC","use":"x509-svid","x5c":["AAAA"]},`), 1)
	shown, err := r.service.CreateRelationship(t.Context(), &ententev1.CreateRelationshipRequest{
		Relationship:    spiffeRelationship(us, federationtest.NewEndpoint(t, us, us.Bundle(t, 42))),
		BootstrapBundle: withBroken,
	})
	require.NoError(t, err)
	require.Equal(t, uint32(1), shown.GetIgnoredKeys())
	ap := &ententev1.Relationship{
		TrustDomain: "ap.example.org", Url: "https://127.0.0.1:1/",
		Profile: ententev1.EndpointProfile_ENDPOINT_PROFILE_HTTPS_WEB,
		State:   ententev1.RelationshipState_RELATIONSHIP_STATE_SUSPENDED,
	}
	r.create(t, ap, nil)
	now = now.Add(90 * time.Second)
	compare := func(want string) {
		t.Helper()
		require.NoError(t, r.manager.catalog.Load(r.store.View(), func(err error) { t.Error(err) }))
		require.NoError(t, testutil.GatherAndCompare(r.registry, strings.NewReader(want),
			"entente_federation_bundle_sequence", "entente_federation_bundle_age_seconds",
			"entente_federation_bundle_freshness", "entente_federation_bundle_ignored_keys",
			"entente_federation_relationship_suspended"))
	}
	compare(`
# HELP entente_federation_bundle_age_seconds Time since the keys of a foreign bundle last changed.
# TYPE entente_federation_bundle_age_seconds gauge
entente_federation_bundle_age_seconds{trust_domain="us.example.org"} 90
# HELP entente_federation_bundle_freshness Freshness of a foreign bundle: 0 none yet, 1 fresh, 2 stale, 3 expired.
# TYPE entente_federation_bundle_freshness gauge
entente_federation_bundle_freshness{trust_domain="ap.example.org"} 0
entente_federation_bundle_freshness{trust_domain="us.example.org"} 1
# HELP entente_federation_bundle_ignored_keys Keys of a foreign bundle that are left out: no verifier could use them.
# TYPE entente_federation_bundle_ignored_keys gauge
entente_federation_bundle_ignored_keys{trust_domain="us.example.org"} 1
# HELP entente_federation_bundle_sequence Sequence of a foreign bundle, if it has one.
# TYPE entente_federation_bundle_sequence gauge
entente_federation_bundle_sequence{trust_domain="us.example.org"} 42
# HELP entente_federation_relationship_suspended 1 if the relationship is suspended, else 0.
# TYPE entente_federation_relationship_suspended gauge
entente_federation_relationship_suspended{trust_domain="ap.example.org"} 1
entente_federation_relationship_suspended{trust_domain="us.example.org"} 0
`)
	for _, name := range []string{"us.example.org", "ap.example.org"} {
		_, err := r.service.DeleteRelationship(t.Context(), &ententev1.DeleteRelationshipRequest{TrustDomain: name})
		require.NoError(t, err)
	}
	compare("")
}
