package hub

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

const (
	// maxExpired bounds the attestations that one transaction marks, each with its document and history, and maxDeleted
	// those that it deletes.
	maxExpired, maxDeleted = 25, 200
)

// Reconciler keeps the validity of hubs' maps and the stored attestations up to date. It runs on the leader.
type Reconciler struct{ config Config }

// NewReconciler returns a reconciler.
func NewReconciler(c Config) *Reconciler { return &Reconciler{config: c} }

// Reconcile makes one pass. leading is when this member began to lead.
func (r *Reconciler) Reconcile(ctx context.Context, leading time.Time) {
	for _, t := range r.transitions(leading) {
		r.commit(ctx, t)
	}
	expired, over := r.outdated()
	for some := range slices.Chunk(expired, maxExpired) {
		r.markExpired(ctx, some)
	}
	for some := range slices.Chunk(over, maxDeleted) {
		r.delete(ctx, some)
	}
}

// transition is a change of the validity of a hub's map.
type transition struct {
	name       string
	generation uint64
	was, is    relationship.Validity
	last       time.Time
}

// judgeMap returns the validity of a hub's map at now, by when it was last read. The authorities of a kind count as
// expired if nothing has confirmed them for the relationship's max_stale. When each X.509 authority expires is checked
// by domain.
func judgeMap(
	now time.Time,
	r *relationship.Relationship,
	last time.Time,
	interval time.Duration,
) relationship.Validity {
	return relationship.Judge(now, relationship.Facts{
		Stored: true, LastSuccess: last, Interval: interval, X509Until: now.Add(time.Hour), JWTKeys: 1,
		MaxStaleX509: r.MaxStaleX509, MaxStaleJWT: r.MaxStaleJWT,
	})
}

// transitions judges the maps of all hubs.
func (r *Reconciler) transitions(leading time.Time) (found []transition) {
	if listening := r.config.Observations.Received.Leadership().Since; listening.After(leading) {
		leading = listening
	}
	now := r.config.Now()
	r.config.Mirror.EachHub(func(name string, e mirror.Entry) {
		rel := e.Rel
		if !rel.InForce {
			return
		}
		reported := r.config.Observations.Success(name + relationship.MapSuffix)
		if reported.IsZero() && rel.HubRecorded.IsZero() {
			return // it was never read
		}
		last := relationship.LastKnownSuccess(reported, rel.HubRecorded, leading, rel.HubValidity.State)
		interval := r.config.Intake.Interval(rel.PollInterval, e.Holding)
		if is := judgeMap(now, rel, last, interval); is != rel.HubValidity {
			found = append(found, transition{name, rel.Generation, rel.HubValidity, is, last})
		}
	})
	slices.SortFunc(found, func(a, b transition) int { return strings.Compare(a.name, b.name) })
	return found
}

// commit writes a transition. If it cannot be written, the next pass finds it again.
func (r *Reconciler) commit(ctx context.Context, t transition) {
	_, err := r.config.Store.Update(ctx, func(tx *raftstore.Tx) error {
		row, found, err := relationship.Relationships.Get(tx, t.name)
		if err != nil || !found || row.Value.GetGeneration() != t.generation || row.Value.GetHub() == nil {
			return err
		}
		row.Value.HubValidity = t.is.Row(t.last)
		return relationship.Relationships.Put(tx, t.name, row.Value)
	})
	switch {
	case ctx.Err() != nil:
	case err != nil:
		r.config.Log.Warn("validity of a hub's map not written; retrying", "hub", t.name, "error", err)
	default:
		r.config.Log.Info("validity of a hub's map changed", "hub", t.name, "was", t.was.State, "is", t.is.State,
			"x509_expired", t.is.X509Expired, "jwt_expired", t.is.JWTExpired)
	}
}

// outdated returns the keys of the attestations whose bundle has expired, and of those that do not count any more
// because the relationship with the hub ended or does not take the domain. The attestations of a suspended hub are
// kept.
func (r *Reconciler) outdated() (expired, over []string) {
	now := r.config.Now()
	r.config.Mirror.EachAttestation(func(key string, a mirror.AttestationHolding, hub *relationship.Relationship) {
		switch {
		case hub == nil || !hub.Hub.Covers(a.TrustDomain) || !hub.Created.Equal(a.RelationshipCreated):
			over = append(over, key)
		case !a.Expired && now.After(a.X509Until):
			expired = append(expired, key)
		}
	})
	slices.Sort(expired)
	slices.Sort(over)
	return expired, over
}

func (r *Reconciler) markExpired(ctx context.Context, keys []string) {
	_, err := r.config.Store.Update(ctx, func(tx *raftstore.Tx) error {
		for _, key := range keys {
			row, found, err := relationship.HubBundles.Get(tx, key)
			if err != nil {
				return err
			}
			if !found || row.Value.GetX509Expired() {
				continue
			}
			now, err := mirror.NewAttestationHolding(row.Value, row.Revision)
			if err != nil || !r.config.Now().After(now.X509Until) {
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
		r.config.Log.Warn("expired attestations of hubs not marked; retrying", "error", err)
	}
}

// delete deletes attestations that do not count any more.
func (r *Reconciler) delete(ctx context.Context, keys []string) {
	var deleted []string
	revision, err := r.config.Store.Update(ctx, func(tx *raftstore.Tx) error {
		deleted = deleted[:0]
		hubs := map[string]*statev1.Relationship{}
		for _, key := range keys {
			row, found, err := relationship.HubBundles.Get(tx, key)
			if err != nil {
				return err
			}
			if !found {
				continue
			}
			hub, read := hubs[row.Value.GetHub()]
			if !read {
				rel, _, err := relationship.Relationships.Get(tx, row.Value.GetHub())
				if err != nil {
					return err
				}
				hub = rel.Value
				hubs[row.Value.GetHub()] = hub
			}
			if hub != nil && relationship.Attests(hub, row.Value) {
				continue // an operator has reverted the change
			}
			if err := relationship.HubBundles.Delete(tx, key); err != nil {
				return err
			}
			deleted = append(deleted, key)
		}
		return nil
	})
	if err != nil {
		if ctx.Err() == nil {
			r.config.Log.Warn("attestations of hubs that do not count any more not deleted; retrying", "error", err)
		}
		return
	}
	for _, key := range deleted {
		td, hub, _ := strings.Cut(key, "/")
		r.config.Intake.Record(
			actionWithdraw,
			td,
			audit.ResultDone,
			"it is taken from the hub "+hub+" no more",
			revision,
		)
	}
}
