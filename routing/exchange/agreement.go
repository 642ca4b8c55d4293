package exchange

import (
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ententehq/entente/raftstore"
)

// Agreement is the part of a relationship with a foreign trust domain that exports and imports depend on.
type Agreement struct {
	// Since identifies the agreement: exports and imports that were created under it end with it.
	Since time.Time
	// InForce means that the relationship is not suspended and no consent is missing.
	InForce bool
	// Peer is the home trust domain of the cluster at the other end of the streams, or "" if the relationship names
	// none.
	Peer string
}

// Agreements returns the agreements with foreign trust domains. Its methods read only from the given reader. They are
// called from any goroutine, also inside of transactions.
type Agreements interface {
	// Hosted reports whether this cluster is the authority of a trust domain.
	Hosted(r raftstore.Reader, trustDomain string) (bool, error)
	// With returns the agreement with a foreign trust domain, and whether there is one.
	With(r raftstore.Reader, trustDomain string) (Agreement, bool, error)
}

// noAgreements is used by a cluster without agreements.
type noAgreements struct{}

func (noAgreements) Hosted(raftstore.Reader, string) (bool, error) { return false, nil }
func (noAgreements) With(raftstore.Reader, string) (Agreement, bool, error) {
	return Agreement{}, false, nil
}

// requireAgreement returns the agreement under which a service is exported to a domain, or imported from it.
func requireAgreement(agreements Agreements, r raftstore.Reader, trustDomain string) (Agreement, error) {
	hosted, err := agreements.Hosted(r, trustDomain)
	if err != nil {
		return Agreement{}, err
	}
	if hosted {
		return Agreement{}, status.Errorf(
			codes.FailedPrecondition,
			"this cluster hosts %s itself; services are exported to, and imported from, the domains of other clusters",
			trustDomain,
		)
	}
	a, found, err := agreements.With(r, trustDomain)
	if err != nil {
		return a, err
	}
	if !found {
		return a, status.Errorf(
			codes.FailedPrecondition,
			"this cluster has no relationship with %s; create one first, with 'entente federation "+
				"invite' or 'entente federation create'",
			trustDomain,
		)
	}
	return a, nil
}

// inactiveReason returns why nothing is shared under an agreement at present, or "".
func (a Agreement) inactiveReason(trustDomain string) string {
	switch {
	case !a.InForce:
		return fmt.Sprintf(
			"the relationship with %s is suspended, or lacks the consent of one side; see 'entente federation show %s'",
			trustDomain, trustDomain,
		)
	case a.Peer == "":
		return fmt.Sprintf(
			"the relationship with %s names no peer, and services are shared over streams only; name it with "+
				"'entente federation update %s --peer-domain DOMAIN --peer-address HOST:PORT'",
			trustDomain,
			trustDomain,
		)
	}
	return ""
}
