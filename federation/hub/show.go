package hub

import (
	"encoding/hex"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/federation/mirror"
	"github.com/ententehq/entente/federation/observation"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/trust"
)

// Live holds the observations that the leader has of hubs' maps, by the name of the hub with [relationship.MapSuffix].
type Live map[string]observation.Observation

// observed returns what is known about the reading of a hub's map, by the leader and by this member.
func (i *Importer) observed(hub string, live Live) observation.Observation {
	o := live[hub+relationship.MapSuffix]
	if own, ok := i.config.Observations.Own.Get(hub + relationship.MapSuffix); ok {
		count := own.Count
		if o = observation.Merge(o, own); o.Count == (observation.MapCount{}) {
			o.Count = count
		}
	}
	return o
}

// ShowAttested returns, in the form of the API, a domain that is trusted because of a hub's attestation alone, or nil
// if it is not.
func (i *Importer) ShowAttested(view *raftstore.View, td string, live Live) (*ententev1.Relationship, error) {
	d, err := i.config.Trust.Decide(view, td)
	if err != nil || d.Origin != trust.ByAttestation {
		return nil, err
	}
	a := d.Attestation
	b, err := relationship.HubBundle(a.Row.Value)
	if err != nil {
		return nil, err
	}
	out := &ententev1.Relationship{
		TrustDomain: td, OriginHub: a.Hub, OtherHubs: a.Others,
		State:     ententev1.RelationshipState_RELATIONSHIP_STATE_ACTIVE,
		Freshness: a.Status.State.Freshness(), Revision: uint64(a.Row.Revision),
		LastResult: a.Row.Value.GetRefused(), LastError: a.Row.Value.GetRefusal(),
		Alarms: relationship.AlarmMessages(a.Row.Value.GetAlarms()),
	}
	if a.Status.State.Withheld() {
		out.State = ententev1.RelationshipState_RELATIONSHIP_STATE_SUSPENDED
	}
	digest := b.Digest()
	out.Digest = hex.EncodeToString(digest[:])
	if n, ok := b.Sequence(); ok {
		out.Sequence = proto.Uint64(n)
	}
	interval, err := i.intervalOf(view, a.Hub)
	if err != nil {
		return nil, err
	}
	out.RefreshInterval = durationpb.New(interval)
	o := i.observed(a.Hub, live)
	out.LastAttemptTime = timestampOf(o.LastAttempt)
	if out.LastResult == "" {
		out.LastSuccessTime, out.LastResult, out.LastError = timestampOf(o.LastSuccess), o.Result, o.Error
	}
	return out, nil
}

// ShowHub sets in a relationship whether this cluster attests the domain, and if the domain's cluster is a hub what is
// known of its map.
func (i *Importer) ShowHub(out *ententev1.Relationship, row *statev1.Relationship, live Live) {
	out.Attest = row.GetAttest()
	h := row.GetHub()
	if h == nil {
		return
	}
	o := i.observed(row.GetTrustDomain(), live)
	out.Hub = &ententev1.Hub{Include: h.GetInclude(), Exclude: h.GetExclude(), Url: h.GetUrl()}
	out.HubStatus = &ententev1.HubStatus{
		Freshness:       ententev1.Freshness(row.GetHubValidity().GetFreshness()),
		LastAttemptTime: timestampOf(o.LastAttempt), LastResult: o.Result, LastError: o.Error,
		Accepted: uint32(i.attestedBy(row.GetTrustDomain())), //nolint:gosec // at most MaxMapDomains
		Refused:  uint32(o.Count.Refused),                    //nolint:gosec // as before
		LeftOut:  uint32(o.Count.LeftOut),                    //nolint:gosec // as before
	}
	last := o.LastSuccess
	if recorded := row.GetHubValidity().GetLastSuccessTime(); last.IsZero() && recorded.IsValid() {
		last = recorded.AsTime()
	}
	out.HubStatus.LastSuccessTime = timestampOf(last)
}

// attestedBy counts the domains that are stored because of a hub's attestations.
func (i *Importer) attestedBy(hub string) (n int) {
	i.config.Mirror.EachAttestation(func(_ string, a mirror.AttestationHolding, _ *relationship.Relationship) {
		if a.Hub == hub {
			n++
		}
	})
	return n
}

// holdingOf returns what is stored of a foreign domain.
// intervalOf returns the interval at which a hub's bundle and map are fetched.
func (i *Importer) intervalOf(view *raftstore.View, hub string) (time.Duration, error) {
	holding, err := i.holdingOf(view, hub)
	if err != nil {
		return 0, err
	}
	row, _, err := relationship.Relationships.Get(view, hub)
	if err != nil {
		return 0, err
	}
	return i.config.Intake.Interval(relationship.PollIntervalOf(row.Value), holding), nil
}

func (i *Importer) holdingOf(view *raftstore.View, name string) (relationship.Holding, error) {
	row, found, err := relationship.ForeignBundles.Get(view, name)
	if err != nil || !found {
		return relationship.Holding{}, err
	}
	if e, ok := i.config.Mirror.Get(name); ok && e.Holding.Revision == row.Revision {
		return e.Holding, nil
	}
	return relationship.ReadHolding(row.Value, row.Revision)
}

func timestampOf(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
