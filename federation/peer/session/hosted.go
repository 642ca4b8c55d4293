package session

import (
	"time"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/statement"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
)

// ParseVersion parses a version in a message of the peer. Only its form is checked.
func ParseVersion(m *ententev1.PeerBundleVersion) (td string, v relationship.Version, err error) {
	domain, err := bundle.ParseTrustDomain(m.GetTrustDomain())
	if err != nil {
		return "", v, Errorf(
			"malformed",
			"the peer sent the version of %s, which is no trust domain",
			relationship.Quote(m.GetTrustDomain()),
		)
	}
	switch len(m.GetDigest()) {
	case 0:
		return domain.Name(), v, nil
	case len(v.Digest):
		copy(v.Digest[:], m.GetDigest())
		v.Sequence, v.Ordered = m.GetSequence(), m.Sequence != nil
		return domain.Name(), v, nil
	}
	return "", v, Errorf("malformed", "the peer sent a digest of %d bytes for %s", len(m.GetDigest()), domain.Name())
}

// Hosted is the bundle of a hosted domain in the form in which it is sent to peers.
type Hosted struct {
	Version  relationship.Version
	Document []byte
	Hint     time.Duration
	Revision raftstore.Revision
	// Statements are those on the versions of the bundle, as of StatementsRevision.
	Statements         *statement.List
	StatementsRevision raftstore.Revision
}

// MayHave reports whether a peer may receive the bundles of hosted domains. A peer with an active relationship may
// receive all of them, because they are public at the bundle endpoint.
func MayHave(plan relationship.PeerPlan) bool { return len(plan.Wanted) > 0 }
