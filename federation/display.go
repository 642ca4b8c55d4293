package federation

import (
	"context"
	"encoding/hex"
	"maps"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/federation/hub"
	"github.com/ententehq/entente/federation/intake"
	"github.com/ententehq/entente/federation/mirror"
	"github.com/ententehq/entente/federation/observation"
	"github.com/ententehq/entente/federation/peer"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/membership"
	"github.com/ententehq/entente/trust"
)

// maxPageBytes leaves room for the rest of a response below the 4 MiB that gRPC clients accept in one message.
const maxPageBytes = 3 << 20

// display returns relationships as the API has them: the stored rows, with the observations of this member and of the
// leader.
type display struct {
	trust        trust.Sources
	leader       Leader
	catalog      *mirror.Mirror
	observations *observation.Section
	intake       *intake.Intake
	importer     *hub.Importer
	streams      *peer.Streams
	alive        func(r raftstore.Reader) ([]string, error)
	log          hclog.Logger
	now          func() time.Time
}

// show returns a domain as the API has it.
func (d *display) show(ctx context.Context, view *raftstore.View, name string) (*ententev1.Relationship, error) {
	if shown, err := d.showAttested(ctx, view, name); err != nil || shown != nil {
		return shown, raftstore.StatusError(err)
	}
	if _, err := relationship.Get(d.trust, view, name); err != nil { // which has the refusal for operators
		return nil, raftstore.StatusError(err)
	}
	row, _, err := relationship.Relationships.Get(view, name)
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	members, err := d.alive(view)
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	shown, err := d.shown(view, row, members, d.live(ctx, name)[name])
	if err == nil {
		live := map[string]observation.Observation{}
		if row.Value.GetHub() != nil {
			live = d.live(ctx, name+relationship.MapSuffix)
		}
		d.importer.ShowHub(shown, row.Value, live)
	}
	if peer := row.Value.GetPeer(); peer != nil && err == nil {
		d.streams.Known(ctx, peer.GetHomeTrustDomain()).Add(shown)
	}
	return shown, raftstore.StatusError(err)
}

// liveWithin bounds a query to the leader, whose answer is worth no longer wait.
const liveWithin = 2 * time.Second

// live queries the leader for the observations of one relationship, or of all. If there is no leader it returns none:
// the rest of the response is valid.
func (d *display) live(ctx context.Context, name string) map[string]observation.Observation {
	ctx, cancel := context.WithTimeout(ctx, liveWithin)
	defer cancel()
	found := make(map[string]observation.Observation)
	query := &statev1.RelationshipQuery{TrustDomain: name}
	for {
		encoded, err := proto.Marshal(query)
		if err != nil {
			return found
		}
		reply, err := d.leader.Query(ctx, observation.Name, encoded)
		answer := &statev1.RelationshipAnswer{}
		if err == nil {
			err = proto.Unmarshal(reply, answer)
		}
		if err != nil {
			d.log.Debug("the leader did not report when relationships were last fetched", "error", err)
			return found
		}
		now := d.now()
		for _, told := range answer.GetObservations() {
			found[told.GetTrustDomain()] = observation.Read(told, told.GetMember(), now)
		}
		if n := len(answer.GetObservations()); !answer.GetMore() || n == 0 {
			return found
		} else {
			query.After = answer.GetObservations()[n-1].GetTrustDomain()
		}
	}
}

// domainsListed returns, in order, the trust domains that ListRelationships returns: those with a relationship, and
// those that hubs attest.
func domainsListed(view *raftstore.View) (names []string, err error) {
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

// showAttested shows one domain without a relationship, or returns nil if no hub attests it.
func (d *display) showAttested(
	ctx context.Context,
	view *raftstore.View,
	name string,
) (*ententev1.Relationship, error) {
	by, err := d.trust.Decide(view, name)
	if err != nil || by.Origin != trust.ByAttestation {
		return nil, err
	}
	live := d.live(ctx, by.Attestation.Hub+relationship.MapSuffix)
	return d.importer.ShowAttested(view, name, live)
}

// page returns the relationships after a trust domain, at most limit of them, and only as many as fit into one message.
// If limit is 0, only the size of the message limits them.
func (d *display) page(
	ctx context.Context, view *raftstore.View, after string, limit int,
) (*ententev1.ListRelationshipsResponse, error) {
	members, err := d.alive(view)
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	live := d.live(ctx, "")
	streams := d.streams.Known(ctx, "")
	out := &ententev1.ListRelationshipsResponse{Revision: uint64(view.Revision())}
	size := 0
	all, err := domainsListed(view)
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	for _, name := range all {
		if name <= after {
			continue
		}
		shown, err := d.listed(view, name, members, live)
		if err != nil {
			return nil, raftstore.StatusError(err)
		}
		if shown == nil {
			continue // no attestation of it counts
		}
		streams.Add(shown)
		n := len(out.GetRelationships())
		if size += proto.Size(shown); n > 0 && (size > maxPageBytes || n == limit) {
			out.NextPageToken = out.GetRelationships()[n-1].GetTrustDomain()
			break
		}
		out.Relationships = append(out.Relationships, shown)
	}
	return out, nil
}

// listed returns a domain of a list, by its relationship or by an attestation of a hub.
func (d *display) listed(
	view *raftstore.View,
	name string,
	members []string,
	live map[string]observation.Observation,
) (*ententev1.Relationship, error) {
	row, direct, err := relationship.Relationships.Get(view, name)
	if err != nil {
		return nil, err
	}
	if !direct {
		return d.importer.ShowAttested(view, name, live)
	}
	shown, err := d.shown(view, row, members, live[name])
	if err == nil {
		d.importer.ShowHub(shown, row.Value, live)
	}
	return shown, err
}

// owner returns the member that fetches a relationship, or "" if none is alive.
func owner(name string, members []string) string {
	if len(members) == 0 {
		return ""
	}
	return membership.Owner(name, members)
}

// shown returns a relationship as the API has it.
func (d *display) shown(
	view *raftstore.View,
	row raftstore.Row[*statev1.Relationship],
	members []string,
	told observation.Observation,
) (*ententev1.Relationship, error) {
	v := row.Value
	out := relationship.Message(v)
	out.Revision = uint64(row.Revision)
	if relationship.InForce(v) && !v.GetStatic() {
		out.Owner = owner(row.Key, members)
	}
	if own, ok := d.observations.Own.Get(row.Key); ok {
		told = observation.Merge(told, own)
	}
	last := told.LastSuccess
	recorded := v.GetValidity().GetLastSuccessTime()
	switch {
	case v.GetValidity().GetBootstrap() && !last.After(recorded.AsTime()):
		last = time.Time{} // the operator's bundle came after it
	case last.IsZero() && recorded.IsValid():
		last = recorded.AsTime()
	}
	if out.GetFreshness() == ententev1.Freshness_FRESHNESS_BOOTSTRAP && !last.IsZero() {
		out.Freshness = ententev1.Freshness_FRESHNESS_FRESH // which the leader writes within a second
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
	held, err := d.held(view, row.Key)
	if err != nil {
		return nil, err
	}
	out.LeftOut = relationship.KindsOf(v).LeftOut(held)
	out.IgnoredKeys = uint32(held.IgnoredKeys) //nolint:gosec // G115: at most bundle.MaxKeys
	if !v.GetStatic() {
		out.RefreshInterval = durationpb.New(d.intake.Interval(relationship.PollIntervalOf(v), held))
	}
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
	for i, url := range relationship.URLs(row) {
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
func (d *display) held(view *raftstore.View, name string) (relationship.Holding, error) {
	row, found, err := relationship.ForeignBundles.Get(view, name)
	if err != nil || !found {
		return relationship.Holding{}, err
	}
	if e, ok := d.catalog.Get(name); ok && e.Holding.Revision == row.Revision {
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
