// Package standing has the states of a trust domain in this cluster, as pure values: whether its SVIDs can be verified,
// and what an operator reads about it. Package trust decides which one a domain has.
package standing

import (
	"fmt"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// State is the state of a trust domain in this cluster. It decides whether SVIDs of the domain can be verified.
type State uint8

const (
	// Unknown is a domain that is neither hosted nor federated with. It is the zero value, so that a domain that was
	// not looked up is not trusted.
	Unknown State = iota
	// Fresh is a hosted domain, or a foreign one whose bundle was confirmed within three refresh intervals.
	Fresh
	// Bootstrap is a foreign domain whose bundle is the one that an operator or an agreement brought: neither an
	// endpoint nor a stream has confirmed it. It verifies as a fresh one does.
	Bootstrap
	// Stale is a foreign domain whose bundle was not confirmed within three refresh intervals. The bundle still
	// verifies.
	Stale
	// Expired is a foreign domain whose bundle has no valid authority left, or is older than the relationship allows.
	Expired
	// Suspended is a foreign domain whose relationship an operator has suspended. Its bundle is kept and not used.
	Suspended
	// Pending is a foreign domain with a relationship whose first bundle has not arrived.
	Pending
	// AwaitingConsent is a foreign domain whose agreement lacks the consent of one side. Its bundle, if any, is kept
	// and not used.
	AwaitingConsent
)

// String returns the name that commands and logs show.
func (s State) String() string {
	switch s {
	case Fresh:
		return "fresh"
	case Bootstrap:
		return "bootstrap"
	case Stale:
		return "stale"
	case Expired:
		return "expired"
	case Suspended:
		return "suspended"
	case Pending:
		return "pending"
	case AwaitingConsent:
		return "awaiting_consent"
	default:
		return "none"
	}
}

// Verifiable reports whether SVIDs of the domain can be verified: its bundle is fresh, stale, or that of its bootstrap.
func (s State) Verifiable() bool { return s == Fresh || s == Bootstrap || s == Stale }

// Withheld reports whether a stored bundle is kept from all readers, by an operator's decision or for lack of consent.
func (s State) Withheld() bool { return s == Suspended || s == AwaitingConsent }

// Sentence describes the state of td to an operator, with the command that helps.
func (s State) Sentence(td spiffeid.TrustDomain) string {
	name := td.Name()
	switch s {
	case Fresh:
		return fmt.Sprintf("the bundle of %s is fresh", name)
	case Bootstrap:
		return fmt.Sprintf("the bundle of %s is that of its bootstrap, and no endpoint has confirmed it yet; see "+
			"'entente federation show %s'", name, name)
	case Stale:
		return fmt.Sprintf("the bundle of %s was not refreshed in time; see 'entente federation show %s'", name, name)
	case Expired:
		return fmt.Sprintf("the bundle of %s has expired; see 'entente federation show %s'", name, name)
	case Suspended:
		return fmt.Sprintf(
			"the relationship with %s is suspended; resume it with 'entente federation resume %s'",
			name,
			name,
		)
	case Pending:
		return fmt.Sprintf("no bundle of %s has been received yet; see 'entente federation show %s'", name, name)
	case AwaitingConsent:
		return fmt.Sprintf(
			"the agreement with %s lacks the consent of one side; 'entente federation show %s' names that side",
			name,
			name,
		)
	default:
		return fmt.Sprintf(
			"%s is neither hosted here nor federated with; 'entente federation create %s' creates a relationship",
			name,
			name,
		)
	}
}

// Freshness returns the API's value for the state. It is unspecified where no bundle is in use.
func (s State) Freshness() ententev1.Freshness {
	switch s {
	case Fresh:
		return ententev1.Freshness_FRESHNESS_FRESH
	case Bootstrap:
		return ententev1.Freshness_FRESHNESS_BOOTSTRAP
	case Stale:
		return ententev1.Freshness_FRESHNESS_STALE
	case Expired:
		return ententev1.Freshness_FRESHNESS_EXPIRED
	default:
		return ententev1.Freshness_FRESHNESS_UNSPECIFIED
	}
}

// FromFreshness returns the state that the API's value stands for, and [Pending] for a value that it does not know.
func FromFreshness(f ententev1.Freshness) State {
	switch f {
	case ententev1.Freshness_FRESHNESS_FRESH:
		return Fresh
	case ententev1.Freshness_FRESHNESS_BOOTSTRAP:
		return Bootstrap
	case ententev1.Freshness_FRESHNESS_STALE:
		return Stale
	case ententev1.Freshness_FRESHNESS_EXPIRED:
		return Expired
	default:
		return Pending
	}
}

// Status is the state of a trust domain for each kind of SVID.
type Status struct {
	// State is that of the bundle as a whole. It is [Expired] once the authorities of both kinds are.
	State State
	// X509 and JWT are those of X509-SVIDs and JWT-SVIDs. Each equals State, or is [Expired] where only authorities of
	// the other kind can be used.
	X509, JWT State
}

// StatusOf returns the status of a domain whose state is the same for both kinds of SVID.
func StatusOf(s State) Status { return Status{State: s, X509: s, JWT: s} }
