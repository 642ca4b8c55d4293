package federation

import (
	"context"

	"github.com/ententehq/entente/federation/fetch"
	"github.com/ententehq/entente/federation/intake"
	"github.com/ententehq/entente/raftstore"
)

// attempts is how often an attempt is repeated at once because its basis changed in the meantime.
const attempts = 3

// basis is what a reading of a hub's map depends on, and for how long it may wait for the hub.
type basis struct {
	intake.Basis
	wait *fetch.Wait
}

func (m *Manager) basisOf(r raftstore.Reader, name string) (basis, error) {
	b, err := m.intake.BasisOf(r, name)
	return basis{Basis: b}, err
}

// mapReader reads the maps of hubs for the poller.
type mapReader struct{ manager *Manager }

func (r mapReader) Refresh(ctx context.Context, hub string, w *fetch.Wait) error {
	return r.manager.refreshMap(ctx, hub, w)
}

func (r mapReader) Forget(hub string) { r.manager.mapReadings.forget(hub) }
