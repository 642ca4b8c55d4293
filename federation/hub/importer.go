package hub

import (
	"context"
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/federation/fetch"
	"github.com/ententehq/entente/federation/intake"
	"github.com/ententehq/entente/federation/mirror"
	"github.com/ententehq/entente/federation/observation"
	"github.com/ententehq/entente/federation/peer/session"
	"github.com/ententehq/entente/federation/relationship"
)

const (
	// maxPasses bounds how often a map is fetched in a row for what did not fit into memory or changed meanwhile. The
	// next turn stores the rest.
	maxPasses = 16
	// attempts is how often changes are applied again because what they depend on has changed.
	attempts = 3
)

// errIncomplete means that not all of a map was stored, and that its next reading stores more.
var errIncomplete = errors.New("not all of the map was stored yet; the next reading stores more")

// Importer stores what hubs attest. It is safe for concurrent use, and runs on any member.
type Importer struct {
	config   Config
	writer   writer
	readings *readings
	// confirmed is when each map was last recorded as confirmed.
	confirmed *observation.Confirmations
	// maps counts readings by result.
	maps *prometheus.CounterVec
}

// NewImporter returns an importer and registers its metrics.
func NewImporter(c Config) (*Importer, error) {
	i := &Importer{
		config: c, writer: writer{c}, readings: newReadings(), confirmed: observation.NewConfirmations(),
		maps: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "entente_federation_hub_maps_total",
			Help: "Readings of the bundle maps of hubs by this member, by result.",
		}, []string{"result"}),
	}
	if c.Registerer == nil {
		return i, nil
	}
	return i, c.Registerer.Register(i.maps)
}

// Forget removes what is kept in memory of the readings of a hub's map, which is read completely the next time.
func (i *Importer) Forget(hub string) {
	i.readings.forget(hub)
	i.confirmed.Forget(hub)
}

// ForgetAll has every map read completely the next time, as after a restore.
func (i *Importer) ForgetAll() { i.readings.forgetAll() }

// Refresh reads the map of a hub from its endpoint, and stores what the relationship with the hub takes. It records its
// own result; the only error that it returns is [relationship.ErrUnfinished]. Several calls may run at once.
func (i *Importer) Refresh(ctx context.Context, hub string, w *fetch.Wait) error {
	var count observation.MapCount
	var result string
	var err error
	var b intake.Basis
	for range maxPasses {
		view := i.config.Store.View()
		if row, found, err := relationship.Relationships.Get(view, hub); err != nil || !found ||
			row.Value.GetHub() == nil {
			return nil //nolint:nilerr // as below, without parsing the many that are no hub
		}
		if b, err = i.config.Intake.BasisOf(view, hub); err != nil || b.Rel.Hub == nil {
			return nil //nolint:nilerr // the relationship ended, or is with no hub any more
		}
		result, count, err = i.readOnce(ctx, hub, b, w)
		if !errors.Is(err, errIncomplete) && !errors.Is(err, relationship.ErrSuperseded) {
			break
		}
	}
	if errors.Is(err, relationship.ErrEnded) || ctx.Err() != nil {
		return nil //nolint:nilerr // the result is not needed any more
	}
	if errors.Is(err, relationship.ErrUnfinished) {
		return err
	}
	failure := ""
	if err != nil {
		result, failure = relationship.ReasonOf(err), relationship.Clip(err.Error())
		i.config.Log.Warn(
			"bundle map of a hub not stored; what was stored before is kept",
			"hub",
			hub,
			"result",
			result,
			"error",
			failure,
		)
		if relationship.IsDecision(result) {
			i.config.Intake.Record(actionRefuseMap, hub, result, failure, 0)
		}
	}
	i.maps.WithLabelValues(result).Inc()
	// Nothing of an incomplete map is outdated, so that it counts as a success.
	succeeded, name := err == nil || errors.Is(err, errIncomplete), hub+relationship.MapSuffix
	i.config.Observations.Attempted(name, b.Rel.Generation, i.config.Now(), succeeded, result, failure)
	if err == nil && result != relationship.ResultNotModified && result != relationship.ResultConfirmed {
		i.config.Observations.Counted(name, count)
		i.config.Log.Debug("bundle map of a hub read", "hub", hub, "result", result,
			"accepted", count.Accepted, "refused", count.Refused, "left_out", count.LeftOut)
	}
	return nil
}

// client returns a client of a hub's endpoint.
func (i *Importer) client(hub string, b intake.Basis) (*endpoint.Client, error) {
	config := i.config.Client
	config.Bundles = nil
	if d := b.Rel.Limits.Timeout; d > 0 {
		config.Timeout = d
	}
	if route := b.Rel.RouteOr(i.config.Route); config.Dial == nil && route.Proxied() {
		config.Dial = route.DialContext
	}
	if b.Rel.Endpoint.Profile() == endpoint.HTTPSSPIFFE {
		if b.Trust == nil {
			return nil, fmt.Errorf("fetch the bundle map of %s: %w", hub, relationship.ErrNoTrust)
		}
		config.Bundles = b.Trust
	}
	return endpoint.NewClient(config), nil
}

// readOnce reads the map once and writes what differs.
func (i *Importer) readOnce(
	ctx context.Context,
	hub string,
	b intake.Basis,
	w *fetch.Wait,
) (result string, count observation.MapCount, err error) {
	client, err := i.client(hub, b)
	if err != nil {
		return "", count, err
	}
	ep := i.config.Endpoint(hub, b.Rel)
	if i.checksOnly(hub, b, w) {
		err := w.On(ctx, func(ctx context.Context) error { return client.ProbeMap(ctx, ep, b.Rel.Hub.URL) })
		if err == nil {
			return relationship.ResultConfirmed, count, nil
		}
		if errors.Is(err, relationship.ErrUnfinished) || ctx.Err() != nil {
			return "", count, err
		}
		i.config.Log.Debug("the endpoint of a hub does not tell whether it serves a map; the map is read", "hub", hub,
			"error", relationship.Clip(err.Error()))
	}
	r, err := i.config.readingOfAll(i.config.Store.View(), hub, b.Rel.Hub)
	if err != nil {
		return "", count, err
	}
	tag := i.readings.tag(hub, r.tagBasis(b))
	var answer endpoint.MapResult
	err = w.On(ctx, func(ctx context.Context) (err error) {
		answer, err = client.FetchMap(ctx, ep, b.Rel.Hub.URL, tag, r.add)
		return err
	})
	if err != nil {
		return "", count, err
	}
	if answer.NotModified {
		i.readings.compared(hub, i.config.Now())
		return relationship.ResultNotModified, count, nil
	}
	r.finish()
	if err := i.writer.write(ctx, r, b); err != nil {
		return "", count, err
	}
	unreported := i.config.report(ctx, r, true)
	if r.incomplete {
		return "", count, errIncomplete
	}
	i.readings.compared(hub, i.config.Now())
	if r.count.Refused == 0 && unreported == nil { // refused entries are to be examined again
		written, err := i.config.readingOfAll(i.config.Store.View(), hub, b.Rel.Hub)
		if err != nil {
			return "", count, err
		}
		i.readings.stored(hub, written.tagBasis(b), answer.ETag)
	}
	if len(r.changes) == 0 {
		return relationship.ResultUnchanged, r.count, nil
	}
	return relationship.ResultStored, r.count, nil
}

// checksOnly reports whether it is sufficient to check that a hub serves its map: a stream keeps what is stored up to
// date, the map was compared lately, and no operator requested the reading.
func (i *Importer) checksOnly(hub string, b intake.Basis, w *fetch.Wait) bool {
	peer := b.Rel.Peer
	return peer != nil && !w.Requested() && i.config.Covers(peer.Home.Name(), hub+relationship.MapSuffix) &&
		comparedLately(i.readings.comparedAt(hub), i.config.Now())
}

// ReceiveChanges stores what a hub sent of its map over a stream. The rules are those of a map from its endpoint. An
// error ends the stream.
func (i *Importer) ReceiveChanges(ctx context.Context, home string, changes *ententev1.PeerMapChanges) error {
	hub := changes.GetTrustDomain()
	for range attempts {
		view := i.config.Store.View()
		b, err := i.config.Intake.BasisOf(view, hub)
		if errors.Is(err, relationship.ErrEnded) ||
			err == nil && (b.Rel.Hub == nil || b.Rel.Peer == nil || b.Rel.Peer.Home.Name() != home) {
			return nil // nothing is stored any more
		}
		var r *reading
		if err == nil {
			r, err = i.config.readingOfChanges(view, hub, b.Rel.Hub, changes)
		}
		if err == nil {
			err = i.writer.write(ctx, r, b)
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err() // the stream has its reason already
		case errors.Is(err, relationship.ErrSuperseded):
			continue
		case err == nil:
			result := relationship.ResultStored
			if len(r.changes) == 0 {
				result = relationship.ResultUnchanged
			}
			i.maps.WithLabelValues(result).Inc()
			// A hub may repeat what is refused; it is logged within the budget of one peer.
			if i.config.report(ctx, r, r.count.Refused > 0 && i.config.LogAllowed(home)) == nil {
				return nil
			}
			return i.unavailable(hub)
		}
		result, failure := relationship.ReasonOf(err), relationship.Clip(err.Error())
		i.maps.WithLabelValues(result).Inc()
		i.config.Log.Warn(
			"map changes of a hub not stored; what was stored before is kept",
			"hub",
			hub,
			"result",
			result,
			"error",
			failure,
		)
		if relationship.IsDecision(result) {
			i.config.Intake.Record(actionRefuseMap, hub, result, failure, 0)
			return session.Errorf("refused_map", "the map changes of %s are refused: %s", hub, failure)
		}
		break
	}
	return i.unavailable(hub)
}

// unavailable ends a stream on which a hub sent what cannot be stored now. The hub sends it again on the next stream.
func (i *Importer) unavailable(hub string) error {
	return session.Errorf("not_stored", "%s cannot store the map changes of %s at the moment", i.config.Home, hub)
}

// ConfirmMap records that a hub has sent all of its map, often enough to keep the map fresh. It does nothing if an
// operator has changed the relationship since the map was subscribed to.
func (i *Importer) ConfirmMap(hub string, generation uint64) {
	e, ok := i.config.Mirror.Get(hub)
	if !ok || e.Rel.Hub == nil || e.PeerHome() == "" || e.Rel.Generation != generation {
		return
	}
	now, every := i.config.Now(), i.config.Intake.Interval(e.Rel.PollInterval, e.Holding)/relationship.StaleAfter
	if i.confirmed.Due(hub, now, every) {
		i.config.Observations.Attempted(
			hub+relationship.MapSuffix,
			generation,
			now,
			true,
			relationship.ResultConfirmed,
			"",
		)
	}
}

// Attested returns the versions that are stored because of a hub's attestations.
func (i *Importer) Attested(hub string) map[string]relationship.Version {
	attested := map[string]relationship.Version{}
	i.config.Mirror.EachAttestation(func(_ string, a mirror.AttestationHolding, rel *relationship.Relationship) {
		if a.Hub == hub && rel != nil && rel.Created.Equal(a.RelationshipCreated) {
			attested[a.TrustDomain] = a.Version
		}
	})
	return attested
}
