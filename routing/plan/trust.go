package plan

import (
	"fmt"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// TrustState says whether a caller of this cluster can verify an instance of some trust domain now.
type TrustState uint8

const (
	// TrustUnknown says that the domain is neither hosted here nor federated with. It is the zero value, so that what was not
	// looked up is not offered.
	TrustUnknown TrustState = iota
	// TrustFresh says that the domain is hosted here, or its bundle is refreshed as it should be.
	TrustFresh
	// TrustStale says that the bundle has not been refreshed for three refresh hints, and still verifies.
	TrustStale
	// TrustExpired says that no authority in the bundle is valid any more, or it is older than the relationship allows.
	TrustExpired
	// TrustSuspended says that an operator has suspended the relationship.
	TrustSuspended
	// TrustPending says that there is a relationship, but no bundle has come yet.
	TrustPending
	// TrustUnagreed says that one of the two sides of an agreement has not given its consent, or has ended it.
	TrustUnagreed
)

// Freshness returns what the API calls a state in which an instance is offered.
func (t TrustState) Freshness() ententev1.Freshness {
	switch t {
	case TrustFresh:
		return ententev1.Freshness_FRESHNESS_FRESH
	case TrustStale:
		return ententev1.Freshness_FRESHNESS_STALE
	case TrustExpired:
		return ententev1.Freshness_FRESHNESS_EXPIRED
	}
	return ententev1.Freshness_FRESHNESS_UNSPECIFIED
}

// refusal says why an instance of td is not offered in this state; empty: it is.
func (t TrustState) refusal(td spiffeid.TrustDomain) string {
	switch t {
	case TrustFresh, TrustStale:
		return ""
	case TrustExpired:
		return fmt.Sprintf("the bundle of %s has expired", td.Name())
	case TrustSuspended:
		return fmt.Sprintf("the relationship with %s is suspended", td.Name())
	case TrustUnagreed:
		return fmt.Sprintf("the agreement with %s lacks the consent of one side", td.Name())
	case TrustPending:
		return fmt.Sprintf("no bundle of %s has been received yet", td.Name())
	}
	return fmt.Sprintf("this cluster has no relationship with %s", td.Name())
}
