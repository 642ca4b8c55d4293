package hub

import (
	"github.com/ententehq/entente/federation/mirror"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/trust"
)

// Config lists what the types of this package depend on.
type Config struct {
	Store *raftstore.Store
	// Mirror holds the relationships and attestations in memory.
	Mirror *mirror.Mirror
	// Trust decides which domains are hosted, and supplies the entries of the map that this cluster serves.
	Trust *trust.Index
	// Unreadable reports a row that this version cannot read. The row is skipped.
	Unreadable func(error)
}
