package federation

import (
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/trust"
)

const (
	// keepEvery is how often the leader looks for standings that have changed. [standings] says at which.
	keepEvery = time.Second
	// sweepEvery is after how many such looks what was heard of relationships that are no more is forgotten, where a member told of
	// one after it had ended. The rest is forgotten when it ends.
	sweepEvery = 60
	// transitionsTogether bounds how many standings one transaction writes, well below the size of a command.
	transitionsTogether = 200
)

// transition is a standing that is no longer true.
type transition struct {
	name       string
	generation uint64
	revision   raftstore.Revision // of the bundle that was judged
	was, is    relationship.Standing
	last       time.Time
}

// keepStandings runs while this member leads.
func (m *Manager) keepStandings(ctx context.Context) {
	leading := m.now()
	judged := m.newStandings(leading)
	ticker := time.NewTicker(keepEvery)
	defer ticker.Stop()
	for look := 0; ; look++ {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if look%sweepEvery == 0 {
				m.observations.Sweep(func(name string) bool { _, ok := m.catalog.Get(name); return ok })
			}
			m.commit(ctx, judged.look())
			m.reconciler.Reconcile(ctx, leading)
		}
	}
}

// commit writes transitions. What cannot be written is found again at the next look.
func (m *Manager) commit(ctx context.Context, found []transition) {
	for some := range slices.Chunk(found, transitionsTogether) {
		var written []transition
		_, err := m.config.Store.Update(ctx, func(tx *raftstore.Tx) error {
			written = written[:0]
			for _, t := range some {
				ok, err := t.write(tx)
				if err != nil {
					return err
				}
				if ok {
					written = append(written, t)
				}
			}
			return nil
		})
		if err != nil {
			if ctx.Err() == nil {
				m.log.Warn("the standing of relationships was not written; trying again", "relationships", len(some), "error", err)
			}
			return
		}
		for _, t := range written {
			level := m.log.Warn
			if t.is.State == trust.Fresh {
				level = m.log.Info
			}
			level("standing of a relationship changed", "trust_domain", t.name, "was", t.was.State, "is", t.is.State,
				"x509_expired", t.is.X509Expired, "jwt_expired", t.is.JWTExpired, "last_success", t.last)
		}
	}
}

// write writes one, and reports whether it still was to be written: everything that was judged is as it was.
func (t transition) write(tx *raftstore.Tx) (bool, error) {
	row, found, err := relationship.Relationships.Get(tx, t.name)
	if err != nil || !found {
		return false, err
	}
	stored, _, err := relationship.ForeignBundles.Get(tx, t.name)
	if err != nil {
		return false, err
	}
	if row.Value.GetGeneration() != t.generation || !relationship.InForce(row.Value) || stored.Revision != t.revision ||
		relationship.StandingOf(row.Value.GetStanding()) != t.was {
		return false, nil
	}
	next := proto.Clone(row.Value).(*statev1.Relationship)
	next.Standing = t.is.Row(t.last)
	return true, relationship.Relationships.Put(tx, t.name, next)
}
