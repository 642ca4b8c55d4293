package federation

import (
	"fmt"
	"time"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/statement"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/trust"
)

// parseVersion reads a version that a peer names. Nothing of it is taken on trust but its form.
func parseVersion(m *ententev1.PeerBundleVersion) (td string, v relationship.Version, err error) {
	domain, err := bundle.ParseTrustDomain(m.GetTrustDomain())
	if err != nil {
		return "", v, violation("malformed", "the peer names %s, which is no trust domain", relationship.Quote(m.GetTrustDomain()))
	}
	switch len(m.GetDigest()) {
	case 0:
		return domain.Name(), v, nil
	case len(v.Digest):
		copy(v.Digest[:], m.GetDigest())
		v.Sequence, v.Ordered = m.GetSequence(), m.Sequence != nil
		return domain.Name(), v, nil
	}
	return "", v, violation("malformed", "the peer names a digest of %d bytes for %s", len(m.GetDigest()), domain.Name())
}

// hostedBundle is the bundle of a hosted domain, as peers are sent it.
type hostedBundle struct {
	version  relationship.Version
	document []byte
	hint     time.Duration
	revision raftstore.Revision
	// statements are those on its versions, as of a revision of theirs.
	statements *statement.List
	stated     raftstore.Revision
}

// hostedBundlesOf reads the hosted bundles; what before has read of the same revision is taken over.
func (m *Manager) hostedBundlesOf(view *raftstore.View, before map[string]hostedBundle) (map[string]hostedBundle, error) {
	next := make(map[string]hostedBundle, len(before))
	rows, err := m.config.HostedBundles.List(view, "")
	if err != nil {
		return nil, fmt.Errorf("read the hosted bundles: %w", err)
	}
	for _, row := range rows {
		if was, ok := before[row.Key]; ok && was.revision == row.Revision {
			next[row.Key] = m.withStatements(view, row.Key, was)
			continue
		}
		b, err := trust.Parse(row.Value)
		if err != nil {
			m.unreadable(fmt.Errorf("hosted bundle of %s: %w", row.Key, err))
			continue
		}
		h := m.withStatements(view, row.Key, hostedBundle{document: b.Marshal(), revision: row.Revision, stated: before[row.Key].stated, statements: before[row.Key].statements})
		h.version.Sequence, h.version.Ordered = b.Sequence()
		h.version.Digest = b.Digest()
		h.hint, _ = b.RefreshHint()
		next[row.Key] = h
	}
	return next, nil
}

// withStatements reads the statements on a hosted domain's bundle, where they changed since they were read.
func (m *Manager) withStatements(view *raftstore.View, td string, h hostedBundle) hostedBundle {
	if m.config.HostedStatements == nil {
		return h
	}
	at := m.config.HostedHistory.PrefixRevision(view, td+"/")
	if at == h.stated {
		return h
	}
	domain, err := bundle.ParseTrustDomain(td)
	if err == nil {
		var compact []string
		if compact, err = m.config.HostedStatements(view, td); err == nil {
			h.statements, h.stated = statement.NewList(domain, compact), at
		}
	}
	if err != nil {
		m.unreadable(fmt.Errorf("statements on the bundle of %s: %w", td, err)) // the bundle goes to peers without
	}
	return h
}

// mayHave decides whether a peer may have the bundles of hosted domains: one with which there is an active relationship may
// have all that it asks for, since they are served to everybody at the bundle endpoint.
func mayHave(plan peerPlan) bool { return len(plan.wanted) > 0 }
