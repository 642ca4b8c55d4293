package authority

import (
	"context"
)

// watchLost has the authorities looked at when keys were lost, until ctx ends.
func (m *Manager) watchLost(ctx context.Context, lost <-chan struct{}) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-lost:
			m.changed.fire()
		}
	}
}
