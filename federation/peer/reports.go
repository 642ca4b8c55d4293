package peer

import (
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/federation/peer/session"
	"github.com/ententehq/entente/raftstore/membership/memory"
)

const (
	// Section is the name under which [Reports] are sent with the heartbeats.
	Section = "peers"
	// maxReport and maxAnswer bound the domains in one report and in one answer. Each takes some 100 bytes at most,
	// with its share of the rest.
	maxReport, maxAnswer = 4000, 10000
	// returnTime is how long a new leader waits for peers whose streams may have ended with the last one, before it
	// reports its knowledge as complete. It does not wait if all of them are connected.
	returnTime = 15 * time.Second
)

// observation is what one member knows of its streams with one peer.
type observation struct {
	known, connected, outgoing bool
	remote                     string
	changed                    time.Time
	result, err                string
	acknowledged               map[string]session.Acknowledgement
	confirmed                  []string
}

func (n observation) equal(o observation) bool {
	return n.known == o.known && n.connected == o.connected && n.outgoing == o.outgoing && n.remote == o.remote &&
		n.result == o.result && n.err == o.err && n.changed.Equal(o.changed) &&
		maps.Equal(n.acknowledged, o.acknowledged) && slices.Equal(n.confirmed, o.confirmed)
}

// cost is the number of domains that count towards maxReport and maxAnswer.
func (n observation) cost() int { return 1 + len(n.acknowledged) + len(n.confirmed) }

// observedBy identifies the observation of one member.
type observedBy struct{ home, member string }

// Reports is the section of the heartbeats about the streams: which peers are connected, and what they have
// acknowledged. Own holds this member's under an empty member name; Received, on the leader, those of all members.
type Reports struct {
	*memory.Section[observedBy, observation]
	now func() time.Time
	// alive returns the members that send heartbeats.
	alive func() ([]string, error)
	// peers returns the peers that relationships in force name; false until the relationships were read.
	peers func() ([]string, bool)
}

func newReports(now func() time.Time, alive func() ([]string, error), peers func() ([]string, bool)) *Reports {
	r := &Reports{now: now, alive: alive, peers: peers}
	r.Section = memory.New(memory.Config[observedBy, observation]{
		Name: Section, Now: now, Encode: r.encode, Decode: r.decode, Restarted: r.lost, Answer: r.answer,
		Cost: func(_ observedBy, n observation) int { return n.cost() }, MaxReport: maxReport,
	})
	return r
}

// update changes what this member knows of a peer.
func (r *Reports) update(home string, change func(n *observation)) {
	r.Own.Update(observedBy{home: home}, func(n *observation) bool {
		was := *n
		change(n)
		return !n.equal(was)
	})
}

// ended records how a stream ended, or that an attempt to open one failed.
func (r *Reports) ended(home, remote string, outgoing bool, reason, text string) {
	now := r.now()
	r.update(home, func(n *observation) {
		if n.changed.IsZero() {
			n.changed = now
		}
		if !n.connected && remote != "" {
			n.remote, n.outgoing = remote, outgoing
		}
		n.result, n.err = reason, text
	})
}

// own returns what this member knows, by peer.
func (r *Reports) own() map[string]observation {
	all := map[string]observation{}
	r.Own.DeleteFunc(func(by observedBy, n observation) bool {
		all[by.home] = n
		return false
	})
	return all
}

// forget removes the peers that no relationship names.
func (r *Reports) forget(exists func(home string) bool) {
	gone := func(by observedBy, _ observation) bool { return !exists(by.home) }
	r.Own.DeleteFunc(gone)
	r.Received.DeleteFunc(gone)
}

// lost records that the streams of a member have ended. What their peers acknowledged remains known.
func (r *Reports) lost(member string) {
	now := r.now()
	r.Received.Change(func(by observedBy, n observation) (observation, bool) {
		if by.member != member || !n.connected {
			return n, false
		}
		n.connected, n.confirmed, n.changed = false, nil, now
		n.result, n.err = "member_lost", "the member that kept the stream sends no heartbeats"
		return n, true
	})
}

// answer answers a [statev1.PeerQuery] from the leader's memory.
func (r *Reports) answer(query []byte) ([]byte, error) {
	q := &statev1.PeerQuery{}
	if err := proto.Unmarshal(query, q); err != nil {
		return nil, err
	}
	alive, err := r.alive()
	if err != nil {
		return nil, err
	}
	for _, member := range r.Received.Members() {
		if !slices.Contains(alive, member) {
			r.lost(member)
		}
	}
	leadership, now := r.Received.Leadership(), r.now()
	answer := &statev1.PeerAnswer{
		Leadership: leadership.ID, Version: leadership.Version, Complete: r.complete(alive, leadership, now),
	}
	after := q.GetAfter()
	if q.GetLeadership() != leadership.ID {
		after = 0
	}
	cost, last := 0, after
	for _, v := range r.Received.Since(after) {
		by, n := v.Key, v.Value
		if q.GetHomeTrustDomain() != "" && by.home != q.GetHomeTrustDomain() {
			continue
		}
		if td := q.GetTrustDomain(); td != "" {
			a, wanted := n.acknowledged[td]
			if !wanted {
				continue
			}
			n.acknowledged, n.confirmed = map[string]session.Acknowledgement{td: a}, nil
		}
		if cost += n.cost(); cost > maxAnswer && len(answer.Observations) > 0 {
			answer.More, answer.Version = true, last
			break
		}
		m := n.message(by.home, now)
		m.Member = by.member
		answer.Observations, last = append(answer.Observations, m), v.Version
	}
	return proto.Marshal(answer)
}

// complete reports whether the leader knows the streams of all members that are alive, and the peers had time to return
// after a change of leader or are all connected.
func (r *Reports) complete(alive []string, leadership memory.Leadership, now time.Time) bool {
	if len(alive) == 0 || !r.Received.Complete(alive) {
		return false
	}
	peers, read := r.peers()
	return now.Sub(leadership.Since) >= returnTime || read && r.allReturned(peers)
}

// allReturned reports whether each peer has a stream on which it has sent which bundles it wants.
func (r *Reports) allReturned(peers []string) bool {
	returned := map[string]bool{}
	for by, n := range r.Received.All() {
		if n.connected && len(n.acknowledged) > 0 {
			returned[by.home] = true
		}
	}
	return !slices.ContainsFunc(peers, func(home string) bool { return !returned[home] })
}

func (r *Reports) encode(report memory.Report[observedBy, observation]) ([]byte, error) {
	now, m := r.now(), &statev1.PeerReport{Run: report.Run, Full: report.Full}
	for _, e := range report.Entries {
		m.Observations = append(m.Observations, e.Value.message(e.Key.home, now))
	}
	return proto.Marshal(m)
}

func (r *Reports) decode(member string, report []byte) (decoded memory.Report[observedBy, observation], err error) {
	m := &statev1.PeerReport{}
	if err := proto.Unmarshal(report, m); err != nil {
		return decoded, err
	}
	now := r.now()
	decoded.Run, decoded.Full = m.GetRun(), m.GetFull()
	for _, o := range m.GetObservations() {
		decoded.Entries = append(decoded.Entries, memory.Entry[observedBy, observation]{
			Key: observedBy{home: o.GetHomeTrustDomain(), member: member}, Value: observationOf(o, now),
		})
	}
	return decoded, nil
}

func (n observation) message(home string, now time.Time) *statev1.PeerObservation {
	m := &statev1.PeerObservation{
		HomeTrustDomain: home, Known: n.known, Connected: n.connected, Outgoing: n.outgoing, RemoteMember: n.remote,
		Result: n.result, Error: n.err, Confirmed: n.confirmed,
	}
	if !n.changed.IsZero() {
		m.SinceChange = durationpb.New(now.Sub(n.changed))
	}
	for _, td := range slices.Sorted(maps.Keys(n.acknowledged)) {
		a := n.acknowledged[td]
		m.Acknowledged = append(m.Acknowledged, &statev1.PeerVersion{
			TrustDomain: td, Sequence: a.Sequence, Refusal: a.Refusal, Since: durationpb.New(now.Sub(a.Time)),
		})
	}
	return m
}

func observationOf(m *statev1.PeerObservation, now time.Time) observation {
	n := observation{
		known: m.GetKnown(), connected: m.GetConnected(), outgoing: m.GetOutgoing(), remote: m.GetRemoteMember(),
		result: m.GetResult(), err: m.GetError(), confirmed: m.GetConfirmed(),
		acknowledged: map[string]session.Acknowledgement{},
	}
	if m.SinceChange != nil {
		n.changed = now.Add(-max(0, m.GetSinceChange().AsDuration()))
	}
	for _, a := range m.GetAcknowledged() {
		n.acknowledged[a.GetTrustDomain()] = session.Acknowledgement{
			Sequence: a.GetSequence(), Refusal: a.GetRefusal(), Time: now.Add(-max(0, a.GetSince().AsDuration())),
		}
	}
	return n
}
