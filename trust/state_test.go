package trust_test

import (
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/trust"
)

func TestState(t *testing.T) {
	us := spiffeid.RequireTrustDomainFromString("us.example.org")
	for _, test := range []struct {
		state                trust.State
		name                 string
		verifiable, withheld bool
		freshness            ententev1.Freshness
		sentence             string
	}{
		{trust.Unknown, "none", false, false, ententev1.Freshness_FRESHNESS_UNSPECIFIED,
			"us.example.org is neither hosted here nor federated with; " +
				"'entente federation create us.example.org' creates a relationship"},
		{trust.Fresh, "fresh", true, false, ententev1.Freshness_FRESHNESS_FRESH,
			"the bundle of us.example.org is fresh"},
		{trust.Bootstrap, "bootstrap", true, false, ententev1.Freshness_FRESHNESS_BOOTSTRAP,
			"the bundle of us.example.org is that of its bootstrap, and no endpoint has confirmed it yet; see " +
				"'entente federation show us.example.org'"},
		{trust.Stale, "stale", true, false, ententev1.Freshness_FRESHNESS_STALE,
			"the bundle of us.example.org was not refreshed in time; see 'entente federation show us.example.org'"},
		{trust.Expired, "expired", false, false, ententev1.Freshness_FRESHNESS_EXPIRED,
			"the bundle of us.example.org has expired; see 'entente federation show us.example.org'"},
		{trust.Suspended, "suspended", false, true, ententev1.Freshness_FRESHNESS_UNSPECIFIED,
			"the relationship with us.example.org is suspended; resume it with 'entente federation resume " +
				"us.example.org'"},
		{trust.Pending, "pending", false, false, ententev1.Freshness_FRESHNESS_UNSPECIFIED,
			"no bundle of us.example.org has been received yet; see 'entente federation show us.example.org'"},
		{trust.AwaitingConsent, "awaiting_consent", false, true, ententev1.Freshness_FRESHNESS_UNSPECIFIED,
			"the agreement with us.example.org lacks the consent of one side; " +
				"'entente federation show us.example.org' names that side"},
	} {
		t.Run(test.name, func(t *testing.T) {
			require.Equal(t, test.name, test.state.String())
			require.Equal(t, test.verifiable, test.state.Verifiable())
			require.Equal(t, test.withheld, test.state.Withheld())
			require.Equal(t, test.freshness, test.state.Freshness())
			require.Equal(t, test.sentence, test.state.Sentence(us))
			if test.freshness != ententev1.Freshness_FRESHNESS_UNSPECIFIED {
				require.Equal(t, test.state, trust.FromFreshness(test.freshness))
			}
		})
	}
	require.Equal(t, trust.Pending, trust.FromFreshness(ententev1.Freshness_FRESHNESS_UNSPECIFIED))
	require.Equal(t, trust.Status{State: trust.Stale, X509: trust.Stale, JWT: trust.Stale}, trust.StatusOf(trust.Stale))
}

func TestSentenceNamesWhoSuspended(t *testing.T) {
	td := spiffeid.RequireTrustDomainFromString("us.example.org")
	d := trust.Decision{Status: trust.StatusOf(trust.Suspended), Origin: trust.ByRelationship}
	require.Equal(t, trust.Suspended.Sentence(td), d.Sentence(td), "a row of an earlier version")
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	d.Relationship.Value = &statev1.Relationship{Suspended: true, Suspension: &statev1.RelationshipSuspension{
		Time: timestamppb.New(at), By: "spiffe://eu.example.org/ops",
	}}
	require.Equal(t, "the relationship with us.example.org is suspended, since 2026-01-02T03:04:05Z by "+
		"spiffe://eu.example.org/ops; resume it with 'entente federation resume us.example.org'", d.Sentence(td))
	d.Status = trust.StatusOf(trust.Stale)
	require.Equal(t, trust.Stale.Sentence(td), d.Sentence(td))
}
