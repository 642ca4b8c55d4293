package federation

import (
	"fmt"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/statement"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/trust"
)

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
