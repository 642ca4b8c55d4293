package federation

import (
	"cmp"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/federation/peer/session"
)

const (
	// PeerSection is the name under which [PeerReports] go with the heartbeats.
	PeerSection = "peers"
	// maxPeerReport and maxPeerAnswer bound the domains that one report and one answer tell of, each of some 100 bytes at most
	// with its share of the rest.
	maxPeerReport, maxPeerAnswer = 4000, 10000
	// returnTime is what peers are given to come back after a change of leader, before those not heard of count as gone: their
	// streams may have been those of the leader that died. When all of them are back, nobody waits for it.
	returnTime = 15 * time.Second
)

// peerNote is what one member knows of its streams with one peer.
type peerNote struct {
	known, connected, outgoing bool
	remote                     string
	changed                    time.Time
	result, err                string
	acked                      map[string]session.Acknowledgement
	confirmed                  []string
	// version is that of the leader's memory when it took the note in.
	version uint64
}

func (n peerNote) equal(o peerNote) bool {
	return n.known == o.known && n.connected == o.connected && n.outgoing == o.outgoing && n.remote == o.remote && n.result == o.result && n.err == o.err &&
		n.changed.Equal(o.changed) && maps.Equal(n.acked, o.acked) && slices.Equal(n.confirmed, o.confirmed)
}

// PeerReports is what a member knows of its streams, and on the leader what every member has told it: who is connected, and what
// peers have acknowledged. None of it is replicated. It is a section of the members' heartbeats.
type PeerReports struct {
	now func() time.Time
	// alive reads which members are heard from.
	alive func() ([]string, error)
	// peers are the home trust domains that relationships in force name; false: they were not read yet.
	peers func() ([]string, bool)
	run   uint64

	mu      sync.Mutex
	own     map[string]peerNote
	dirty   map[string]bool
	telling bool // all that is known, in parts

	heard   map[string]map[string]peerNote // by peer and member
	runs    map[string]uint64
	told    map[string]bool // members that told all since the lead began
	lead    uint64
	leading time.Time
	version uint64
}

func newPeerReports(now func() time.Time, alive func() ([]string, error), peers func() ([]string, bool)) *PeerReports {
	return &PeerReports{
		now: now, alive: alive, peers: peers, run: rand.Uint64(), own: map[string]peerNote{}, dirty: map[string]bool{},
		heard: map[string]map[string]peerNote{}, runs: map[string]uint64{}, told: map[string]bool{},
	}
}

// update changes what this member knows of a peer.
func (r *PeerReports) update(home string, change func(n *peerNote)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	was := r.own[home]
	is := was
	is.acked = maps.Clone(was.acked)
	change(&is)
	if !is.equal(was) {
		r.own[home], r.dirty[home] = is, true
	}
}

// ended writes down how a stream ended, or an attempt to open one failed.
func (r *PeerReports) ended(home, remote string, outgoing bool, reason, text string) {
	now := r.now()
	r.update(home, func(n *peerNote) {
		if n.changed.IsZero() {
			n.changed = now
		}
		if !n.connected && remote != "" {
			n.remote, n.outgoing = remote, outgoing
		}
		n.result, n.err = reason, text
	})
}

// forget drops the peers that no relationship names.
func (r *PeerReports) forget(exists func(home string) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for home := range r.own {
		if !exists(home) {
			delete(r.own, home)
			delete(r.dirty, home)
		}
	}
	for home := range r.heard {
		if !exists(home) {
			delete(r.heard, home)
		}
	}
}

// Collect returns what changed since the last call, or all if full is set; in parts, where it is much.
func (r *PeerReports) Collect(full bool) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	if full {
		r.telling = true
		for home := range r.own {
			r.dirty[home] = true
		}
	}
	if len(r.dirty) == 0 && !r.telling {
		return nil
	}
	now, room := r.now(), maxPeerReport
	report := &statev1.PeerReport{Run: r.run}
	for home := range r.dirty {
		note := r.own[home]
		if room -= 1 + len(note.acked) + len(note.confirmed); room < 0 && len(report.Observations) > 0 {
			break
		}
		report.Observations = append(report.Observations, note.message(home, now))
		delete(r.dirty, home)
	}
	if r.telling && len(r.dirty) == 0 {
		report.Full, r.telling = true, false
	}
	encoded, err := proto.Marshal(report)
	if err != nil {
		return nil // a message of our own making with valid UTF-8 always encodes
	}
	return encoded
}

// Deliver takes over what a member reports, on the leader.
func (r *PeerReports) Deliver(member string, report []byte) {
	message := &statev1.PeerReport{}
	if proto.Unmarshal(report, message) != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	if r.runs[member] != message.GetRun() {
		r.runs[member] = message.GetRun()
		r.told[member] = false
		r.lost(member, now) // it started anew, and its streams with it
	}
	for _, m := range message.GetObservations() {
		home := m.GetHomeTrustDomain()
		if r.heard[home] == nil {
			r.heard[home] = map[string]peerNote{}
		}
		r.version++
		note := peerNoteOf(m, now)
		note.version = r.version
		r.heard[home][member] = note
	}
	r.told[member] = r.told[member] || message.GetFull()
}

// lost says that the streams of a member are gone. What their peers acknowledged stays known.
func (r *PeerReports) lost(member string, now time.Time) {
	for _, notes := range r.heard {
		if n, ok := notes[member]; ok && n.connected {
			r.version++
			n.connected, n.confirmed, n.changed, n.version = false, nil, now, r.version
			n.result, n.err = "member_lost", "the member that kept the stream is not heard from"
			notes[member] = n
		}
	}
}

// Reset forgets what other members told, when this one begins to lead.
func (r *PeerReports) Reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.heard)
	clear(r.runs)
	clear(r.told)
	r.leading, r.lead, r.version = r.now(), rand.Uint64()|1, 0
}

// Answer tells what the leader heard, for a [statev1.PeerQuery].
func (r *PeerReports) Answer(query []byte) ([]byte, error) {
	q := &statev1.PeerQuery{}
	if err := proto.Unmarshal(query, q); err != nil {
		return nil, err
	}
	alive, err := r.alive()
	if err != nil {
		return nil, err
	}
	peers, read := r.peers()
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	answer := &statev1.PeerAnswer{Lead: r.lead, Complete: len(alive) > 0 && (now.Sub(r.leading) >= returnTime || read && r.allBack(peers))}
	for _, member := range alive {
		answer.Complete = answer.Complete && r.told[member]
	}
	for member := range r.runs {
		if !slices.Contains(alive, member) {
			r.lost(member, now)
		}
	}
	after := q.GetAfter()
	if q.GetLead() != r.lead {
		after = 0
	}
	type told struct {
		home, member string
		note         peerNote
	}
	var found []told
	for home, notes := range r.heard {
		if q.GetHomeTrustDomain() != "" && home != q.GetHomeTrustDomain() {
			continue
		}
		for member, note := range notes {
			if a, wants := note.acked[q.GetTrustDomain()]; q.GetTrustDomain() != "" {
				if !wants {
					continue
				}
				note.acked, note.confirmed = map[string]session.Acknowledgement{q.GetTrustDomain(): a}, nil
			}
			if note.version > after {
				found = append(found, told{home, member, note})
			}
		}
	}
	slices.SortFunc(found, func(a, b told) int { return cmp.Compare(a.note.version, b.note.version) })
	answer.Version = r.version
	room := maxPeerAnswer
	for i, f := range found {
		if room -= 1 + len(f.note.acked) + len(f.note.confirmed); room < 0 && i > 0 {
			answer.More, answer.Version = true, found[i-1].note.version
			break
		}
		m := f.note.message(f.home, now)
		m.Member = f.member
		answer.Observations = append(answer.Observations, m)
	}
	return proto.Marshal(answer)
}

// allBack reports whether each peer has a stream, on which it has said which bundles it wants. r.mu is held.
func (r *PeerReports) allBack(peers []string) bool {
	for _, home := range peers {
		back := false
		for _, n := range r.heard[home] {
			back = back || n.connected && len(n.acked) > 0
		}
		if !back {
			return false
		}
	}
	return true
}

func (n peerNote) message(home string, now time.Time) *statev1.PeerObservation {
	m := &statev1.PeerObservation{
		HomeTrustDomain: home, Known: n.known, Connected: n.connected, Outgoing: n.outgoing, RemoteMember: n.remote,
		Result: n.result, Error: n.err, Confirmed: n.confirmed,
	}
	if !n.changed.IsZero() {
		m.SinceChange = durationpb.New(now.Sub(n.changed))
	}
	for _, td := range slices.Sorted(maps.Keys(n.acked)) {
		a := n.acked[td]
		m.Acknowledged = append(m.Acknowledged, &statev1.PeerVersion{TrustDomain: td, Sequence: a.Sequence, Refusal: a.Refusal, Since: durationpb.New(now.Sub(a.Time))})
	}
	return m
}

func peerNoteOf(m *statev1.PeerObservation, now time.Time) peerNote {
	n := peerNote{
		known: m.GetKnown(), connected: m.GetConnected(), outgoing: m.GetOutgoing(), remote: m.GetRemoteMember(),
		result: m.GetResult(), err: m.GetError(), confirmed: m.GetConfirmed(), acked: map[string]session.Acknowledgement{},
	}
	if m.SinceChange != nil {
		n.changed = now.Add(-max(0, m.GetSinceChange().AsDuration()))
	}
	for _, a := range m.GetAcknowledged() {
		n.acked[a.GetTrustDomain()] = session.Acknowledgement{Sequence: a.GetSequence(), Refusal: a.GetRefusal(), Time: now.Add(-max(0, a.GetSince().AsDuration()))}
	}
	return n
}
