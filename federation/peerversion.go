package federation

import (
	"fmt"

	"github.com/ententehq/entente/federation/peer/session"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/trust"
)

// hostedBundlesOf reads the hosted bundles; what before has read of the same revision is taken over.
func (m *Manager) hostedBundlesOf(view *raftstore.View, before map[string]session.Hosted) (map[string]session.Hosted, error) {
	next := make(map[string]session.Hosted, len(before))
	rows, err := m.config.Trust.Hosted.Bundles.List(view, "")
	if err != nil {
		return nil, fmt.Errorf("read the hosted bundles: %w", err)
	}
	for _, row := range rows {
		if was, ok := before[row.Key]; ok && was.Revision == row.Revision {
			next[row.Key] = m.withStatements(view, row.Key, was)
			continue
		}
		b, err := trust.Parse(row.Value)
		if err != nil {
			m.unreadable(fmt.Errorf("hosted bundle of %s: %w", row.Key, err))
			continue
		}
		h := m.withStatements(view, row.Key, session.Hosted{Document: b.Marshal(), Revision: row.Revision, StatementsRevision: before[row.Key].StatementsRevision, Statements: before[row.Key].Statements})
		h.Version.Sequence, h.Version.Ordered = b.Sequence()
		h.Version.Digest = b.Digest()
		h.Hint, _ = b.RefreshHint()
		next[row.Key] = h
	}
	return next, nil
}

// withStatements reads the statements on a hosted domain's bundle, where they changed since they were read.
func (m *Manager) withStatements(view *raftstore.View, td string, h session.Hosted) session.Hosted {
	list, at, err := m.config.Trust.Statements(view, td)
	if err != nil {
		m.unreadable(err) // the bundle goes to peers without
		return h
	}
	h.Statements, h.StatementsRevision = list, at
	return h
}
