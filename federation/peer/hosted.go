package peer

import (
	"context"
	"fmt"
	"sync"

	"github.com/ententehq/entente/federation/peer/session"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/feed"
	"github.com/ententehq/entente/trust"
)

// hosted mirrors the bundles of the hosted trust domains in the form in which they are sent to peers.
type hosted struct {
	config Config
	// changed is called after every change.
	changed func()

	mu      sync.Mutex
	bundles map[string]session.Hosted // replaced as a whole
}

// get returns all hosted bundles. The map does not change.
func (h *hosted) get() map[string]session.Hosted {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.bundles
}

// run follows the tables until ctx ends.
func (h *hosted) run(ctx context.Context) error {
	tables := h.config.Trust.Hosted
	over := []raftstore.Prefix{tables.Bundles.Prefix("")}
	if tables.Statements != nil {
		over = append(over, tables.History.Prefix(""))
	}
	return feed.Latest(ctx, h.config.Store, over, func(v *raftstore.View) error {
		before := h.get()
		next, err := h.read(v, before)
		if err != nil {
			return err
		}
		h.mu.Lock()
		h.bundles = next
		h.mu.Unlock()
		for td := range before {
			if _, ok := next[td]; !ok {
				h.config.Hub.SetHosted(td, session.Hosted{}.Version)
			}
		}
		for td, b := range next {
			h.config.Hub.SetHosted(td, b.Version)
		}
		h.changed()
		return nil
	})
}

// read reads the hosted bundles. A bundle that before holds of the same revision is not parsed again.
func (h *hosted) read(view *raftstore.View, before map[string]session.Hosted) (map[string]session.Hosted, error) {
	next := make(map[string]session.Hosted, len(before))
	rows, err := h.config.Trust.Hosted.Bundles.List(view, "")
	if err != nil {
		return nil, fmt.Errorf("read the hosted bundles: %w", err)
	}
	for _, row := range rows {
		was, ok := before[row.Key]
		if ok && was.Revision == row.Revision {
			next[row.Key] = h.withStatements(view, row.Key, was)
			continue
		}
		b, err := trust.Parse(row.Value)
		if err != nil {
			h.config.Unreadable(fmt.Errorf("hosted bundle of %s: %w", row.Key, err))
			continue
		}
		is := session.Hosted{
			Document: b.Marshal(), Revision: row.Revision, Statements: was.Statements,
			StatementsRevision: was.StatementsRevision,
		}
		is.Version.Sequence, is.Version.Ordered = b.Sequence()
		is.Version.Digest = b.Digest()
		is.Hint, _ = b.RefreshHint()
		next[row.Key] = h.withStatements(view, row.Key, is)
	}
	return next, nil
}

// withStatements adds the statements on a hosted domain's bundle. If they cannot be read, those that were read before
// are kept.
func (h *hosted) withStatements(view *raftstore.View, td string, b session.Hosted) session.Hosted {
	list, revision, err := h.config.Trust.Statements(view, td)
	if err != nil {
		h.config.Unreadable(err)
		return b
	}
	b.Statements, b.StatementsRevision = list, revision
	return b
}
