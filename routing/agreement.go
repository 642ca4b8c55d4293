package routing

import (
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ententehq/entente/raftstore"
)

// Agreement is what a relationship says of a foreign trust domain, as exports and imports need it.
type Agreement struct {
	// Since tells one agreement with a domain from the next: what was exported or imported under one ends with it.
	Since time.Time
	// InForce says that it is acted on: it is not suspended, and whoever has to consent does.
	InForce bool
	// Peer is the home trust domain of the cluster with which a stream is kept; empty: the relationship names none.
	Peer string
}

// Agreements tells which foreign domains there are agreements with. The node implements it. Its methods read nothing but what
// they are given: they are called inside of transactions too, from any goroutine.
type Agreements interface {
	// Hosted says whether the cluster is the authority of a trust domain.
	Hosted(r raftstore.Reader, trustDomain string) (bool, error)
	// With returns the agreement with a foreign trust domain, and false where there is none.
	With(r raftstore.Reader, trustDomain string) (Agreement, bool, error)
}

// noAgreements is a cluster that has none, and hosts nothing that it knows of.
type noAgreements struct{}

func (noAgreements) Hosted(raftstore.Reader, string) (bool, error) { return false, nil }
func (noAgreements) With(raftstore.Reader, string) (Agreement, bool, error) {
	return Agreement{}, false, nil
}

// agreed returns the agreement under which something is exported to a domain, or imported from it.
func (m *Manager) agreed(r raftstore.Reader, trustDomain string) (Agreement, error) {
	hosted, err := m.agreements.Hosted(r, trustDomain)
	if err != nil {
		return Agreement{}, err
	}
	if hosted {
		return Agreement{}, status.Errorf(codes.FailedPrecondition, "this cluster hosts %s itself; services are exported to, and imported from, the domains of other clusters", trustDomain)
	}
	a, found, err := m.agreements.With(r, trustDomain)
	if err != nil {
		return a, err
	}
	if !found {
		return a, status.Errorf(codes.FailedPrecondition, "this cluster has no relationship with %s; make one first, with 'entente federation invite' or 'entente federation create'", trustDomain)
	}
	return a, nil
}

// heldBack says why nothing travels under an agreement; empty: it does.
func (a Agreement) heldBack(trustDomain string) string {
	switch {
	case !a.InForce:
		return fmt.Sprintf("the relationship with %s is suspended, or lacks the consent of one side; see 'entente federation show %s'", trustDomain, trustDomain)
	case a.Peer == "":
		return fmt.Sprintf("the relationship with %s names no peer, and services travel over streams alone; name it with 'entente federation update %s --peer-domain DOMAIN --peer-address HOST:PORT'", trustDomain, trustDomain)
	}
	return ""
}
