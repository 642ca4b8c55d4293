package federation

import (
	"context"
	"encoding/hex"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/federation/observation"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/trust"
)

// listed are the trust domains that ListRelationships shows, in order: those with a relationship, and those that are trusted by a hub's
// word alone.
func listed(view *raftstore.View) (names []string, err error) {
	all := make(map[string]struct{})
	for row, err := range relationship.Relationships.All(view, "") {
		if err != nil {
			return nil, err
		}
		all[row.Key] = struct{}{}
	}
	for td, err := range relationship.HubDomains(view) {
		if err != nil {
			return nil, err
		}
		all[td] = struct{}{}
	}
	return slices.Sorted(maps.Keys(all)), nil
}

// shownByHub shows a domain that is trusted by a hub's word alone; nil: it is not, and hosted domains are not.
func (m *Manager) shownByHub(view *raftstore.View, td string, mapTold func(hub string) observation.Observation) (*ententev1.Relationship, error) {
	d, err := m.config.Trust.Decide(view, td)
	if err != nil || d.Origin != trust.ByAttestation {
		return nil, err
	}
	word := d.Attestation
	b, err := relationship.HubBundle(word.Row.Value)
	if err != nil {
		return nil, err
	}
	out := &ententev1.Relationship{
		TrustDomain: td, OriginHub: word.Hub, OtherHubs: word.Others, State: ententev1.RelationshipState_RELATIONSHIP_STATE_ACTIVE,
		Freshness: word.Status.State.Freshness(), Revision: uint64(word.Row.Revision),
		LastResult: word.Row.Value.GetRefused(), LastError: word.Row.Value.GetRefusal(), Alarms: shownAlarms(word.Row.Value.GetAlarms()),
	}
	if word.Status.State.Withheld() {
		out.State = ententev1.RelationshipState_RELATIONSHIP_STATE_SUSPENDED
	}
	digest := b.Digest()
	out.Digest = hex.EncodeToString(digest[:])
	if n, ok := b.Sequence(); ok {
		out.Sequence = proto.Uint64(n)
	}
	held, err := m.held(view, word.Hub)
	if err != nil {
		return nil, err
	}
	out.RefreshInterval = durationpb.New(m.intake.Interval(held)) // the hub's
	told := mapTold(word.Hub)
	out.LastAttemptTime = timestampOf(told.LastAttempt)
	if out.LastResult == "" {
		out.LastSuccessTime, out.LastResult, out.LastError = timestampOf(told.LastSuccess), told.Result, told.Error
	}
	return out, nil
}

// mapTold is what is known of the reading of a hub's map.
func (m *Manager) mapTold(live map[string]observation.Observation) func(hub string) observation.Observation {
	return func(hub string) observation.Observation {
		told := live[hub+relationship.MapSuffix]
		if own, ok := m.observations.Own.Get(hub + relationship.MapSuffix); ok {
			count := own.Count
			if told = observation.Merge(told, own); told.Count == (observation.MapCount{}) {
				told.Count = count
			}
		}
		return told
	}
}

// addHub puts into a relationship what is known of the map, where its domain's cluster is a hub.
func (m *Manager) addHub(out *ententev1.Relationship, row *statev1.Relationship, mapTold func(hub string) observation.Observation) {
	out.Attest = row.GetAttest()
	h := row.GetHub()
	if h == nil {
		return
	}
	told := mapTold(row.GetTrustDomain())
	out.Hub = &ententev1.Hub{Include: h.GetInclude(), Exclude: h.GetExclude(), Url: h.GetUrl()}
	out.HubStatus = &ententev1.HubStatus{
		Freshness: ententev1.Freshness(row.GetHubStanding().GetFreshness()), LastAttemptTime: timestampOf(told.LastAttempt),
		LastResult: told.Result, LastError: told.Error, Accepted: uint32(m.wordsOf(row.GetTrustDomain())), //nolint:gosec // at most MaxMapDomains
		Refused: uint32(told.Count.Refused), LeftOut: uint32(told.Count.LeftOut), //nolint:gosec // as before
	}
	last := told.LastSuccess
	if recorded := row.GetHubStanding().GetLastSuccessTime(); last.IsZero() && recorded.IsValid() {
		last = recorded.AsTime()
	}
	out.HubStatus.LastSuccessTime = timestampOf(last)
}

func shownAlarms(alarms []*statev1.RelationshipAlarm) (out []*ententev1.RelationshipAlarm) {
	for _, a := range alarms {
		out = append(out, &ententev1.RelationshipAlarm{Name: a.GetName(), Detail: a.GetDetail(), Time: a.GetTime(), Sequence: a.GetSequence()})
	}
	return out
}

// showByHub shows one domain without a relationship; nil: no hub vouches for it.
func (m *Manager) showByHub(ctx context.Context, view *raftstore.View, name string) (*ententev1.Relationship, error) {
	d, err := m.config.Trust.Decide(view, name)
	if err != nil || d.Origin != trust.ByAttestation {
		return nil, err
	}
	return m.shownByHub(view, name, m.mapTold(m.live(ctx, d.Attestation.Hub+relationship.MapSuffix)))
}
