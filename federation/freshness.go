package federation

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/protobuf/proto"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/federation/mirror"
	"github.com/ententehq/entente/federation/observation"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/feed"
	"github.com/ententehq/entente/trust/standing"
)

const (
	// judgeEvery is how often the leader judges the relationships that are due.
	judgeEvery = time.Second
	// longestRest is the longest time between two judgements of a relationship.
	longestRest = time.Minute
	// sweepEvery is how many rounds pass until observations of relationships that have ended are removed, which members
	// reported after the end.
	sweepEvery = 60
	// transitionsTogether bounds how many transitions one transaction writes, well below the size of a command.
	transitionsTogether = 200
)

// freshness is the freshness reconciler: on the leader, it keeps the stored validity of each relationship true. An
// unchanged validity is not written.
type freshness struct {
	store        *raftstore.Store
	mirror       *mirror.Mirror
	observations *observation.Section
	// hubs keeps the validity of hubs' maps and of their attestations.
	hubs interface {
		Reconcile(ctx context.Context, leading time.Time)
	}
	minRefresh time.Duration
	log        hclog.Logger
	now        func() time.Time
	// changed are the relationships to judge because their rows changed.
	changed *feed.Set[string]
}

// transition is a change of a validity.
type transition struct {
	name       string
	generation uint64
	revision   raftstore.Revision // of the bundle that was judged
	was, is    relationship.Validity
	last       time.Time
}

// run runs while this member leads.
func (f *freshness) run(ctx context.Context) {
	leading := f.now()
	l := f.queue(leading)
	ticker := time.NewTicker(judgeEvery)
	defer ticker.Stop()
	for round := 0; ; round++ {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if round%sweepEvery == 0 {
				f.observations.Sweep(func(name string) bool { _, ok := f.mirror.Get(name); return ok })
			}
			f.commit(ctx, l.judge())
			f.hubs.Reconcile(ctx, leading)
		}
	}
}

// leaderQueue is what a leader has to judge. A relationship is judged when its validity can have changed, so that not
// all of them are judged every second. It belongs to one goroutine.
type leaderQueue struct {
	*freshness
	since time.Time
	// due are the relationships that the next round judges, rest those that rest. Each is in one of both.
	due  map[string]struct{}
	rest *relationship.Queue
}

// queue begins a term of leadership, in which every relationship is due.
func (f *freshness) queue(since time.Time) *leaderQueue {
	l := &leaderQueue{freshness: f, since: since}
	f.changed.Take()
	l.all()
	return l
}

func (l *leaderQueue) all() {
	l.due, l.rest = map[string]struct{}{}, relationship.NewQueue()
	for _, name := range l.mirror.Names() {
		l.due[name] = struct{}{}
	}
}

// judge judges what is due and returns the transitions. Relationships that are not in force keep their validity.
func (l *leaderQueue) judge() (found []transition) {
	leading := l.since
	if received := l.observations.Received.Leadership().Since; received.After(leading) {
		leading = received
	}
	affected := l.changed.Take()
	if affected.All {
		l.all()
	}
	for name := range affected.Keys {
		l.rest.Remove(name)
		l.due[name] = struct{}{}
	}
	now := l.now()
	for name, ok := l.rest.Due(now); ok; name, ok = l.rest.Due(now) {
		l.due[name] = struct{}{}
	}
	for name := range l.due {
		e, exists := l.mirror.Get(name)
		if !exists || !e.Rel.InForce {
			delete(l.due, name) // it becomes due when that changes
			continue
		}
		r := e.Rel
		reported := l.observations.Success(name)
		last := relationship.LastKnownSuccess(reported, r.Recorded, leading, r.Validity.State)
		if r.Static {
			last = r.Recorded // nobody reports
		}
		facts := e.Holding.Facts(r, last, l.minRefresh)
		facts.Bootstrap = r.Validity.Bootstrap && !reported.After(r.Recorded)
		is := relationship.Judge(now, facts)
		switch {
		case is != r.Validity:
			if !relationship.Premature(r.Validity.State, is.State, now.Sub(leading), facts.Interval) {
				found = append(found, transition{name, r.Generation, e.Holding.Revision, r.Validity, is, last})
			}
		case r.Static || !reported.IsZero():
			if until := restsUntil(now, is, facts); until.After(now.Add(judgeEvery)) {
				delete(l.due, name)
				l.rest.Set(name, until)
			}
		}
	}
	slices.SortFunc(found, func(a, b transition) int { return strings.Compare(a.name, b.name) })
	return found
}

// restsUntil returns when a validity is judged again if nothing but time and further successes affects it. What a
// success can improve is judged every time.
func restsUntil(now time.Time, s relationship.Validity, f relationship.Facts) time.Time {
	soon := now.Add(judgeEvery)
	if s.State != standing.Fresh || s.Bootstrap ||
		s.X509Expired && !f.X509Until.IsZero() || s.JWTExpired && f.JWTKeys > 0 {
		return soon
	}
	until := now.Add(longestRest)
	ends := []time.Time{f.LastSuccess.Add(relationship.StaleAfter * f.Interval)}
	if !f.X509Until.IsZero() {
		ends = append(ends, f.X509Until)
	}
	for _, most := range []time.Duration{f.MaxStaleX509, f.MaxStaleJWT} {
		if most > 0 {
			ends = append(ends, f.LastSuccess.Add(most))
		}
	}
	for _, end := range ends {
		if !end.Before(now) && end.Before(until) {
			until = end
		}
	}
	if until.Before(soon) {
		return soon
	}
	return until
}

// commit writes transitions. The next round finds again what cannot be written.
func (f *freshness) commit(ctx context.Context, found []transition) {
	for some := range slices.Chunk(found, transitionsTogether) {
		var written []transition
		_, err := f.store.Update(ctx, func(tx *raftstore.Tx) error {
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
				f.log.Warn(
					"the validity of relationships was not written; trying again",
					"relationships",
					len(some),
					"error",
					err,
				)
			}
			return
		}
		for _, t := range written {
			level := f.log.Warn
			if t.is.State == standing.Fresh {
				level = f.log.Info
			}
			level("validity of a relationship changed", "trust_domain", t.name,
				"was", t.was.Shown().String(), "is", t.is.Shown().String(),
				"x509_expired", t.is.X509Expired, "jwt_expired", t.is.JWTExpired, "last_success", t.last)
		}
	}
}

// write writes a transition, and reports whether it did: everything that was judged is unchanged.
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
		relationship.ValidityOf(row.Value.GetValidity()) != t.was {
		return false, nil
	}
	next := proto.Clone(row.Value).(*statev1.Relationship)
	next.Validity = t.is.Row(t.last)
	return true, relationship.Relationships.Put(tx, t.name, next)
}
