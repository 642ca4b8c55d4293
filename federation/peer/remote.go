package peer

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
)

const (
	// queryInterval is how often a member queries the leader for the streams of the others. Only changes are sent.
	queryInterval = time.Second
	// queryTimeout bounds one query.
	queryTimeout = 2 * time.Second
	// answerLifetime is how long the last answer is used. While there is no leader, the streams of the others are
	// unknown after that, and the bundles are fetched.
	answerLifetime = 10 * time.Second
)

// queryLeader queries the leader, page by page. complete reports whether the leader knows the streams of all members.
func (c Config) queryLeader(
	ctx context.Context,
	query *statev1.PeerQuery,
	each func(*statev1.PeerObservation),
) (complete bool, err error) {
	for {
		encoded, err := proto.Marshal(query)
		if err != nil {
			return false, err
		}
		reply, err := c.Leader.Query(ctx, Section, encoded)
		answer := &statev1.PeerAnswer{}
		if err == nil {
			err = proto.Unmarshal(reply, answer)
		}
		if err != nil {
			return false, fmt.Errorf("query the leader about peers: %w", err)
		}
		for _, o := range answer.GetObservations() {
			each(o)
		}
		query.Leadership, query.After = answer.GetLeadership(), answer.GetVersion()
		if !answer.GetMore() {
			return answer.GetComplete(), nil
		}
	}
}

// remote holds what this member knows of the streams of the other members.
type remote struct {
	streams *Streams

	mu       sync.Mutex
	query    *statev1.PeerQuery
	observed map[string]map[string]observation // by peer and member
	queried  time.Time
}

func newRemote(s *Streams) *remote {
	return &remote{streams: s, query: &statev1.PeerQuery{}, observed: map[string]map[string]observation{}}
}

// run queries the leader until ctx ends, while there is any peer.
func (r *remote) run(ctx context.Context) error {
	ticker := time.NewTicker(queryInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if !r.streams.plans.none() {
			r.refresh(ctx)
		}
	}
}

func (r *remote) refresh(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	r.mu.Lock()
	query := proto.CloneOf(r.query)
	r.mu.Unlock()
	leadership := query.GetLeadership()
	var changed []*statev1.PeerObservation
	_, err := r.streams.config.queryLeader(
		ctx,
		query,
		func(o *statev1.PeerObservation) { changed = append(changed, o) },
	)
	if err != nil {
		r.streams.config.Logger.Debug("the streams of the other members are not known", "error", err)
		r.expire()
		return
	}
	now := r.streams.config.Now()
	var homes []string
	r.mu.Lock()
	if leadership != query.GetLeadership() {
		clear(r.observed)
	}
	r.query, r.queried = query, now
	for _, o := range changed {
		if o.GetMember() == r.streams.config.Member() {
			continue
		}
		home := o.GetHomeTrustDomain()
		if r.observed[home] == nil {
			r.observed[home] = map[string]observation{}
		}
		r.observed[home][o.GetMember()] = observationOf(o, now)
		homes = append(homes, home)
	}
	r.mu.Unlock()
	r.changed(homes)
}

// expire drops the last answer if it is too old, so that the bundles are fetched.
func (r *remote) expire() {
	r.mu.Lock()
	var homes []string
	if r.streams.config.Now().Sub(r.queried) > answerLifetime {
		homes = slices.Collect(maps.Keys(r.observed))
		clear(r.observed)
		r.query = &statev1.PeerQuery{}
	}
	r.mu.Unlock()
	r.changed(homes)
}

func (r *remote) changed(homes []string) {
	r.streams.Plan(homes...)
	for _, home := range homes {
		r.streams.config.Changed(r.streams.plans.wanted(home))
	}
}

// incoming reports whether another member has a stream that the peer opened.
func (r *remote) incoming(home string) bool {
	return r.some(home, func(n observation) bool { return !n.outgoing })
}

// confirms reports whether another member has a stream over which the peer keeps a domain, or a hub's map, up to date.
func (r *remote) confirms(home, name string) bool {
	return r.some(home, func(n observation) bool { return slices.Contains(n.confirmed, name) })
}

func (r *remote) some(home string, is func(observation) bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range r.observed[home] {
		if n.connected && is(n) {
			return true
		}
	}
	return false
}

// Acknowledgement is how a peer stands with the bundle of one hosted domain that it wants.
type Acknowledgement struct {
	// Peer is its home trust domain.
	Peer string
	// Sequence is the last that the peer acknowledged, or 0. Refusal is the named reason for which it refused a later
	// one.
	Sequence uint64
	Refusal  string
	// Connected reports whether a stream is open, and Silent for how long none was.
	Connected bool
	Silent    time.Duration
}

// Acknowledged returns every peer that has or had a stream and wants the bundle of a hosted domain, by name. complete
// is false while the leader cannot know all of them; then others may be missing.
func (p *Streams) Acknowledged(
	ctx context.Context, td string,
) (acknowledged []Acknowledgement, complete bool, err error) {
	if homes, read := p.plans.homes(); len(homes) == 0 {
		return nil, read, nil
	}
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	byPeer := map[string]Acknowledgement{}
	complete, err = p.config.queryLeader(ctx, &statev1.PeerQuery{TrustDomain: td}, func(o *statev1.PeerObservation) {
		for _, a := range o.GetAcknowledged() {
			if a.GetTrustDomain() != td || !o.GetKnown() {
				continue
			}
			is := Acknowledgement{
				Peer: o.GetHomeTrustDomain(), Sequence: a.GetSequence(),
				Refusal: a.GetRefusal(), Connected: o.GetConnected(),
			}
			if !is.Connected {
				is.Silent = o.GetSinceChange().AsDuration()
			}
			if was, ok := byPeer[is.Peer]; ok {
				is = is.merge(was)
			}
			byPeer[is.Peer] = is
		}
	})
	for _, peer := range slices.Sorted(maps.Keys(byPeer)) {
		if _, active := p.plans.of(peer); active {
			acknowledged = append(acknowledged, byPeer[peer])
		}
	}
	return acknowledged, complete, err
}

// merge combines what two members know of a peer. Sequences only rise, so that the higher one is the later one.
func (s Acknowledgement) merge(o Acknowledgement) Acknowledgement {
	out := s
	if o.Sequence > s.Sequence {
		out.Sequence, out.Refusal = o.Sequence, o.Refusal
	}
	if out.Connected = s.Connected || o.Connected; out.Connected {
		out.Silent = 0
	} else {
		out.Silent = min(s.Silent, o.Silent)
	}
	return out
}
