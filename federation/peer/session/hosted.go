package session

import (
	"time"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/statement"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
)

// ParseVersion reads a version that a peer names. Nothing of it is taken on trust but its form.
func ParseVersion(m *ententev1.PeerBundleVersion) (td string, v relationship.Version, err error) {
	domain, err := bundle.ParseTrustDomain(m.GetTrustDomain())
	if err != nil {
		return "", v, Errorf("malformed", "the peer names %s, which is no trust domain", relationship.Quote(m.GetTrustDomain()))
	}
	switch len(m.GetDigest()) {
	case 0:
		return domain.Name(), v, nil
	case len(v.Digest):
		copy(v.Digest[:], m.GetDigest())
		v.Sequence, v.Ordered = m.GetSequence(), m.Sequence != nil
		return domain.Name(), v, nil
	}
	return "", v, Errorf("malformed", "the peer names a digest of %d bytes for %s", len(m.GetDigest()), domain.Name())
}

// Hosted is the bundle of a hosted domain, as peers are sent it.
type Hosted struct {
	Version  relationship.Version
	Document []byte
	Hint     time.Duration
	Revision raftstore.Revision
	// Statements are those on its versions, as of a revision of theirs.
	Statements         *statement.List
	StatementsRevision raftstore.Revision
}

// MayHave decides whether a peer may have the bundles of hosted domains: one with which there is an active relationship may
// have all that it asks for, since they are served to everybody at the bundle endpoint.
func MayHave(plan relationship.PeerPlan) bool { return len(plan.Wanted) > 0 }
