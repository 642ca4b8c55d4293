package federation

import (
	"encoding/hex"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/federation/intake"
	"github.com/ententehq/entente/federation/observation"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/trust"
)

// shown returns a relationship as the API has it.
func (m *Manager) shown(
	view *raftstore.View,
	row raftstore.Row[*statev1.Relationship],
	members []string,
	told observation.Observation,
) (*ententev1.Relationship, error) {
	v := row.Value
	out := relationship.Message(v)
	out.Revision = uint64(row.Revision)
	if relationship.InForce(v) {
		out.Owner = m.owner(row.Key, members)
	}
	if own, ok := m.observations.Own.Get(row.Key); ok {
		told = observation.Merge(told, own)
	}
	last := told.LastSuccess
	if recorded := v.GetStanding().GetLastSuccessTime(); last.IsZero() && recorded.IsValid() {
		last = recorded.AsTime()
	}
	out.LastSuccessTime, out.LastAttemptTime = timestampOf(last), timestampOf(told.LastAttempt)
	if told.Generation == v.GetGeneration() {
		out.LastResult, out.LastError = told.Result, told.Error
		out.Endpoints = attemptsShown(v, told)
		if relationship.InForce(v) {
			out.NextAttemptTime = timestampOf(told.Next)
		}
	}
	out.Alarms = relationship.AlarmMessages(v.GetAlarms())
	stated, err := intake.StatedSequence(view, row.Key)
	if err != nil {
		return nil, err
	}
	out.StatedSequence = stated
	held, err := m.held(view, row.Key)
	if err != nil {
		return nil, err
	}
	out.LeftOut = relationship.KindsOf(v).LeftOut(held)
	out.RefreshInterval = durationpb.New(m.intake.Interval(held))
	if held.Revision > 0 {
		out.Digest = hex.EncodeToString(held.Digest[:])
		if held.Ordered {
			out.Sequence = proto.Uint64(held.Sequence)
		}
	}
	return out, nil
}

// attemptsShown returns the last attempt at each endpoint of a relationship.
func attemptsShown(row *statev1.Relationship, told observation.Observation) (out []*ententev1.EndpointAttempt) {
	endpoints := told.Endpoints
	if len(row.GetFallbackUrls()) == 0 {
		endpoints = []observation.Attempt{{At: told.LastAttempt, Result: told.Result, Error: told.Error}}
	}
	for i, url := range append([]string{row.GetUrl()}, row.GetFallbackUrls()...) {
		shown := &ententev1.EndpointAttempt{Url: url}
		if i < len(endpoints) {
			shown.Result, shown.Error, shown.AttemptTime = endpoints[i].Result, endpoints[i].Error, timestampOf(
				endpoints[i].At,
			)
		}
		out = append(out, shown)
	}
	return out
}

// held returns the facts about the stored bundle of a relationship, from the mirror if it has the same revision.
func (m *Manager) held(view *raftstore.View, name string) (relationship.Holding, error) {
	row, found, err := relationship.ForeignBundles.Get(view, name)
	if err != nil || !found {
		return relationship.Holding{}, err
	}
	if e, ok := m.catalog.Get(name); ok && e.Holding.Revision == row.Revision {
		return e.Holding, nil
	}
	b, err := trust.Parse(row.Value)
	if err != nil {
		return relationship.Holding{}, err
	}
	return relationship.NewHolding(b, row.Value.GetChangeTime().AsTime(), row.Revision), nil
}

func timestampOf(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
