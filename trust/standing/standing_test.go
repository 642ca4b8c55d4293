package standing_test

import (
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/trust/standing"
)

func TestState(t *testing.T) {
	us := spiffeid.RequireTrustDomainFromString("us.example.org")
	for _, test := range []struct {
		state                standing.State
		name                 string
		verifiable, withheld bool
		freshness            ententev1.Freshness
		sentence             string
	}{
		{standing.Unknown, "none", false, false, ententev1.Freshness_FRESHNESS_UNSPECIFIED,
			"us.example.org is neither hosted here nor federated with; " +
				"'entente federation create us.example.org' creates a relationship"},
		{standing.Fresh, "fresh", true, false, ententev1.Freshness_FRESHNESS_FRESH,
			"the bundle of us.example.org is fresh"},
		{standing.Bootstrap, "bootstrap", true, false, ententev1.Freshness_FRESHNESS_BOOTSTRAP,
			"the bundle of us.example.org is that of its bootstrap, and no endpoint has confirmed it yet; see " +
				"'entente federation show us.example.org'"},
		{standing.Stale, "stale", true, false, ententev1.Freshness_FRESHNESS_STALE,
			"the bundle of us.example.org was not refreshed in time; see 'entente federation show us.example.org'"},
		{standing.Expired, "expired", false, false, ententev1.Freshness_FRESHNESS_EXPIRED,
			"the bundle of us.example.org has expired; see 'entente federation show us.example.org'"},
		{standing.Suspended, "suspended", false, true, ententev1.Freshness_FRESHNESS_UNSPECIFIED,
			"the relationship with us.example.org is suspended; resume it with 'entente federation resume " +
				"us.example.org'"},
		{standing.Pending, "pending", false, false, ententev1.Freshness_FRESHNESS_UNSPECIFIED,
			"no bundle of us.example.org has been received yet; see 'entente federation show us.example.org'"},
		{standing.AwaitingConsent, "awaiting_consent", false, true, ententev1.Freshness_FRESHNESS_UNSPECIFIED,
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
				require.Equal(t, test.state, standing.FromFreshness(test.freshness))
			}
		})
	}
	require.Equal(t, standing.Pending, standing.FromFreshness(ententev1.Freshness_FRESHNESS_UNSPECIFIED))
	require.Equal(t, standing.Status{State: standing.Stale, X509: standing.Stale, JWT: standing.Stale},
		standing.StatusOf(standing.Stale))
}
