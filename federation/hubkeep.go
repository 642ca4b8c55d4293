package federation

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/ententehq/entente/access/audit"
	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/federation/mirror"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
)

// hubTransition is a standing of a hub's map that is no longer true.
type hubTransition struct {
	name       string
	generation uint64
	was, is    relationship.Standing
	last       time.Time
}

// judgeMap says how a hub's map stands at now, by when it was last read. Authorities of a kind count as expired where nothing
// confirmed them for the relationship's max_stale; when each X.509 authority ends is looked at domain by domain.
func judgeMap(now time.Time, r *relationship.Relationship, last time.Time, interval time.Duration) relationship.Standing {
	s := relationship.Judge(now, relationship.Facts{
		Stored: true, LastSuccess: last, Interval: interval, X509Until: now.Add(time.Hour), JWTKeys: 1,
		MaxStaleX509: r.MaxStaleX509, MaxStaleJWT: r.MaxStaleJWT,
	})
	return s
}

// keepHubs runs on the leader beside keepStandings: it keeps the standing of each hub's map true, marks what has expired of what hubs
// say, and sweeps what counts no more.
func (m *Manager) keepHubs(ctx context.Context, leading time.Time) {
	for _, t := range m.hubTransitions(leading) {
		m.commitHub(ctx, t)
	}
	expired, over := m.wordsToKeep()
	for some := range slices.Chunk(expired, transitionsTogether/8) { // with their documents and histories
		m.expireWords(ctx, some)
	}
	for some := range slices.Chunk(over, transitionsTogether) {
		m.sweepWords(ctx, some)
	}
}

// hubTransitions judges the maps of all hubs.
func (m *Manager) hubTransitions(leading time.Time) (found []hubTransition) {
	if listening := m.observations.Received.Lead().Since; listening.After(leading) {
		leading = listening
	}
	now := m.now()
	m.catalog.EachHub(func(name string, e mirror.Entry) {
		r := e.Rel
		if !r.InForce {
			return
		}
		heard := m.observations.Success(name + relationship.MapSuffix)
		if heard.IsZero() && r.HubRecorded.IsZero() {
			return // it was never read
		}
		last := relationship.LastKnownSuccess(heard, r.HubRecorded, leading, r.HubStanding.State)
		if is := judgeMap(now, r, last, m.intake.Interval(e.Holding)); is != r.HubStanding {
			found = append(found, hubTransition{name, r.Generation, r.HubStanding, is, last})
		}
	})
	slices.SortFunc(found, func(a, b hubTransition) int { return strings.Compare(a.name, b.name) })
	return found
}

// commitHub writes one. What cannot be written is found again at the next look.
func (m *Manager) commitHub(ctx context.Context, t hubTransition) {
	_, err := m.config.Store.Update(ctx, func(tx *raftstore.Tx) error {
		row, found, err := relationship.Relationships.Get(tx, t.name)
		if err != nil || !found || row.Value.GetGeneration() != t.generation || row.Value.GetHub() == nil {
			return err
		}
		row.Value.HubStanding = t.is.Row(t.last)
		return relationship.Relationships.Put(tx, t.name, row.Value)
	})
	switch {
	case ctx.Err() != nil:
	case err != nil:
		m.log.Warn("the standing of a hub's map was not written; trying again", "hub", t.name, "error", err)
	default:
		m.log.Info("standing of a hub's map changed", "hub", t.name, "was", t.was.State, "is", t.is.State, "x509_expired", t.is.X509Expired, "jwt_expired", t.is.JWTExpired)
	}
}

// wordsToKeep finds what of hubs' words has expired, and what counts no more: the hub's relationship ended, or takes the domain no
// more. A suspended hub's words stay, and are not relied on.
func (m *Manager) wordsToKeep() (expired, over []string) {
	now := m.now()
	m.catalog.EachAttestation(func(key string, w mirror.AttestationHolding, hub *relationship.Relationship) {
		switch {
		case hub == nil || !hub.Hub.Covers(w.TrustDomain) || !hub.Created.Equal(w.Agreed):
			over = append(over, key)
		case !w.Expired && now.After(w.X509Until):
			expired = append(expired, key)
		}
	})
	slices.Sort(expired)
	slices.Sort(over)
	return expired, over
}

func (m *Manager) expireWords(ctx context.Context, keys []string) {
	_, err := m.config.Store.Update(ctx, func(tx *raftstore.Tx) error {
		for _, key := range keys {
			row, found, err := relationship.HubBundles.Get(tx, key)
			if err != nil {
				return err
			}
			if !found || row.Value.GetX509Expired() {
				continue
			}
			now, err := mirror.NewAttestationHolding(row.Value, row.Revision)
			if err != nil || !m.now().After(now.X509Until) {
				continue // it was replaced meanwhile, or cannot be read
			}
			row.Value.X509Expired = true
			if err := relationship.HubBundles.Put(tx, key, row.Value); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil && ctx.Err() == nil {
		m.log.Warn("what has expired of hubs' words was not marked; trying again", "error", err)
	}
}

// sweepWords deletes what counts no more.
func (m *Manager) sweepWords(ctx context.Context, keys []string) {
	var swept []string
	revision, err := m.config.Store.Update(ctx, func(tx *raftstore.Tx) error {
		swept = swept[:0]
		agreements := map[string]*statev1.Relationship{}
		for _, key := range keys {
			row, found, err := relationship.HubBundles.Get(tx, key)
			if err != nil {
				return err
			}
			if !found {
				continue
			}
			hub, read := agreements[row.Value.GetHub()]
			if !read {
				agreement, _, err := relationship.Relationships.Get(tx, row.Value.GetHub())
				if err != nil {
					return err
				}
				hub = agreement.Value
				agreements[row.Value.GetHub()] = hub
			}
			if hub != nil && relationship.Attests(hub, row.Value) {
				continue // the operator took it back
			}
			if err := relationship.HubBundles.Delete(tx, key); err != nil {
				return err
			}
			swept = append(swept, key)
		}
		return nil
	})
	if err != nil {
		if ctx.Err() == nil {
			m.log.Warn("what hubs said and is taken no more was not deleted; it does not count, and is deleted at the next look", "error", err)
		}
		return
	}
	for _, key := range swept {
		m.intake.Record(actionWithdraw, relationship.DomainOfKey(key), audit.ResultDone, "it is taken from the hub "+hubOfKey(key)+" no more", revision)
	}
}

func hubOfKey(key string) string {
	_, hub, _ := strings.Cut(key, "/")
	return hub
}

// wordsOf counts what is stored by a hub's word.
func (m *Manager) wordsOf(hub string) (n int) {
	m.catalog.EachAttestation(func(_ string, w mirror.AttestationHolding, _ *relationship.Relationship) {
		if w.Hub == hub {
			n++
		}
	})
	return n
}
