package federation

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/federation/mirror"
	"github.com/ententehq/entente/federation/peer/session"
	"github.com/ententehq/entente/federation/relationship"
)

const (
	// askEvery is how often a member asks the leader which streams the others have; only changes are told.
	askEvery = time.Second
	// askedWithin is for how long the last answer holds. Without a leader nothing is known of the others' streams, and the bundles
	// are fetched.
	askedWithin = 10 * time.Second
)

// PeerStanding is how a peer stands with the bundle of one hosted domain that it wants.
type PeerStanding struct {
	// Peer is its home trust domain.
	Peer string
	// Sequence is the last that it acknowledged; 0: none yet. Refusal is the named reason for which it refused a later one.
	Sequence uint64
	Refusal  string
	// Connected says whether a stream is open, and Silent for how long none was.
	Connected bool
	Silent    time.Duration
}

// Acknowledged returns every peer that has or had a stream and wants the bundle of a hosted domain, by name. complete is false while
// the leader cannot know of all of them: then others may be missing.
func (m *Manager) Acknowledged(ctx context.Context, td string) (standings []PeerStanding, complete bool, err error) {
	m.peers.mu.Lock()
	planned, none := m.peers.planned, len(m.peers.plans) == 0
	m.peers.mu.Unlock()
	if none {
		return nil, planned, nil // nobody is to be waited for, or it is too early to say
	}
	ctx, cancel := context.WithTimeout(ctx, liveWithin)
	defer cancel()
	byPeer := map[string]PeerStanding{}
	complete, err = m.askPeers(ctx, &statev1.PeerQuery{TrustDomain: td}, func(o *statev1.PeerObservation) {
		for _, a := range o.GetAcknowledged() {
			if a.GetTrustDomain() != td || !o.GetKnown() {
				continue
			}
			is := PeerStanding{Peer: o.GetHomeTrustDomain(), Sequence: a.GetSequence(), Refusal: a.GetRefusal(), Connected: o.GetConnected()}
			if !is.Connected {
				is.Silent = o.GetSinceChange().AsDuration()
			}
			if was, ok := byPeer[is.Peer]; ok {
				is = is.merge(was)
			}
			byPeer[is.Peer] = is
		}
	})
	m.peers.mu.Lock()
	maps.DeleteFunc(byPeer, func(peer string, _ PeerStanding) bool { _, active := m.peers.plans[peer]; return !active })
	m.peers.mu.Unlock()
	for _, peer := range slices.Sorted(maps.Keys(byPeer)) {
		standings = append(standings, byPeer[peer])
	}
	return standings, complete, err
}

// merge joins what two members know of a peer. Sequences only rise, so that the higher one is the later one.
func (s PeerStanding) merge(o PeerStanding) PeerStanding {
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

// askPeers asks the leader, page by page.
func (m *Manager) askPeers(ctx context.Context, query *statev1.PeerQuery, each func(*statev1.PeerObservation)) (complete bool, err error) {
	for {
		encoded, err := proto.Marshal(query)
		if err != nil {
			return false, err
		}
		reply, err := m.config.Leader.Query(ctx, PeerSection, encoded)
		answer := &statev1.PeerAnswer{}
		if err == nil {
			err = proto.Unmarshal(reply, answer)
		}
		if err != nil {
			return false, fmt.Errorf("ask the leader about peers: %w", err)
		}
		for _, o := range answer.GetObservations() {
			each(o)
		}
		query.Lead, query.After = answer.GetLead(), answer.GetVersion()
		if !answer.GetMore() {
			return answer.GetComplete(), nil
		}
	}
}

// peerAlive reads which members are heard from.
func (m *Manager) peerAlive() ([]string, error) { return m.alive(m.config.Store.View()) }

// remoteStreams is what this member knows of the streams of the others.
type remoteStreams struct {
	peers *peers

	mu    sync.Mutex
	query *statev1.PeerQuery
	notes map[string]map[string]peerNote // by peer and member
	asked time.Time
}

func newRemoteStreams(p *peers) *remoteStreams {
	return &remoteStreams{peers: p, query: &statev1.PeerQuery{}, notes: map[string]map[string]peerNote{}}
}

// run asks until ctx ends, while there is a peer at all.
func (r *remoteStreams) run(ctx context.Context) error {
	ticker := time.NewTicker(askEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		r.peers.mu.Lock()
		any := len(r.peers.plans) > 0
		r.peers.mu.Unlock()
		if any {
			r.ask(ctx)
		}
	}
}

func (r *remoteStreams) ask(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, liveWithin)
	defer cancel()
	r.mu.Lock()
	query := proto.Clone(r.query).(*statev1.PeerQuery)
	r.mu.Unlock()
	lead := query.GetLead()
	var changed []*statev1.PeerObservation
	_, err := r.peers.manager.askPeers(ctx, query, func(o *statev1.PeerObservation) { changed = append(changed, o) })
	if err != nil {
		r.peers.manager.log.Debug("the leader did not tell which streams the others have", "error", err)
		r.expire()
		return
	}
	now := r.peers.manager.now()
	var homes []string
	r.mu.Lock()
	if lead != query.GetLead() {
		clear(r.notes)
	}
	r.query, r.asked = query, now
	for _, o := range changed {
		if o.GetMember() == r.peers.manager.member {
			continue
		}
		home := o.GetHomeTrustDomain()
		if r.notes[home] == nil {
			r.notes[home] = map[string]peerNote{}
		}
		r.notes[home][o.GetMember()] = peerNoteOf(o, now)
		homes = append(homes, home)
	}
	r.mu.Unlock()
	r.changed(homes)
}

// expire forgets what was told when it is too old, and has the bundles fetched.
func (r *remoteStreams) expire() {
	r.mu.Lock()
	var homes []string
	if r.peers.manager.now().Sub(r.asked) > askedWithin {
		homes = slices.Collect(maps.Keys(r.notes))
		clear(r.notes)
		r.query = &statev1.PeerQuery{}
	}
	r.mu.Unlock()
	r.changed(homes)
}

func (r *remoteStreams) changed(homes []string) {
	if len(homes) == 0 {
		return
	}
	r.peers.plan(homes...)
	for _, home := range homes {
		r.peers.manager.changes.relationships(r.peers.wantedOf(home))
	}
}

// incoming reports whether another member has a stream that the peer opened.
func (r *remoteStreams) incoming(home string) bool {
	return r.some(home, func(n peerNote) bool { return !n.outgoing })
}

// confirms reports whether another member has a stream over which the peer keeps a domain up to date.
func (r *remoteStreams) confirms(home, td string) bool {
	return r.some(home, func(n peerNote) bool { return slices.Contains(n.confirmed, td) })
}

func (r *remoteStreams) some(home string, is func(peerNote) bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range r.notes[home] {
		if n.connected && is(n) {
			return true
		}
	}
	return false
}

// streamed reports whether a peer keeps a domain's bundle up to date over a stream to any member, so that it need not be fetched
// at the pace of its hint.
func (p *peers) streamed(home, td string) bool {
	if home == "" {
		return false
	}
	p.mu.Lock()
	streams := slices.Clone(p.streams[home])
	p.mu.Unlock()
	for _, s := range streams {
		s.mu.Lock()
		_, ok := s.session.Confirmed[td]
		s.mu.Unlock()
		if ok {
			return true
		}
	}
	return p.remote.confirms(home, td)
}

// keeps reports whether streams keep up to date all that is fetched for a relationship: its bundle, and where it is with a hub the map.
func (p *peers) keeps(e mirror.Entry) bool {
	home, name := e.PeerHome(), e.Rel.TrustDomain.Name()
	return p.streamed(home, name) && (e.Rel.Hub == nil || p.streamed(home, name+relationship.MapSuffix))
}

// takeEnded reports whether a stream that kept a domain up to date ended since it was last asked.
func (p *peers) takeEnded(td string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	ended := p.ended[td]
	delete(p.ended, td)
	return ended
}

// noted brings what the leader is to be told of a peer up to date with this member's streams.
func (p *peers) noted(home string) {
	p.mu.Lock()
	streams := slices.Clone(p.streams[home])
	p.mu.Unlock()
	now := p.manager.now()
	var before, after []string
	p.reports.update(home, func(n *peerNote) {
		before = n.confirmed
		defer func() { after = n.confirmed }()
		if len(streams) == 0 {
			if n.connected {
				n.connected, n.confirmed, n.changed = false, nil, now
			}
			return
		}
		newest := streams[len(streams)-1]
		newest.mu.Lock()
		defer newest.mu.Unlock()
		s := newest.session
		n.known, n.connected, n.outgoing, n.remote, n.changed = true, true, s.Outgoing, s.Remote, s.Opened
		n.result, n.err = "", ""
		if s.Greeted && len(s.Wanted) > 0 || len(s.Acknowledged) > 0 {
			acked := maps.Clone(s.Acknowledged)
			for td, before := range n.acked { // what was acknowledged once stays known
				if is, ok := acked[td]; ok && before.Sequence > is.Sequence {
					acked[td] = session.Acknowledgement{Sequence: before.Sequence, Refusal: is.Refusal, Time: before.Time}
				}
			}
			n.acked = acked
		}
		n.confirmed = slices.Sorted(maps.Keys(s.Confirmed))
	})
	if !slices.Equal(before, after) {
		p.mu.Lock()
		for _, td := range before {
			if !slices.Contains(after, td) {
				p.ended[relationship.DomainOfKey(td)] = true
			}
		}
		p.mu.Unlock()
		var names []string
		for _, name := range slices.Concat(before, after) {
			names = append(names, relationship.DomainOfKey(name)) // a map's is its hub's
		}
		p.manager.changes.relationships(names) // to be fetched at once, or no more
	}
}
