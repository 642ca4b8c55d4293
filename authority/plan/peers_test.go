package plan

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestPeersGateActivation: a prepared authority that is ready waits for peers that may not know it, until its deadline
// at most.
func TestPeersGateActivation(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	settings := defaults()
	active := Authority{
		ID: "old", Member: "a", Kind: JWT, State: Active, Number: 1,
		NotBefore: now.Add(-12 * time.Hour), NotAfter: now.Add(12 * time.Hour), LongestSVID: settings.JWTSVIDTTL,
	}
	prepared := Authority{
		ID: "new", Member: "a", Kind: JWT, State: Prepared, Number: 2,
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(23 * time.Hour),
		Ready: now, Published: 7, PublishedAt: now.Add(-15 * time.Minute), LongestSVID: settings.JWTSVIDTTL,
	}
	deadline := active.deadline()
	tests := map[string]struct {
		peers    *Peers
		at       time.Time
		others   bool // another member signs, and this one has nothing active
		unsigned bool // no member signs
		activate bool
		alarm    bool
		waits    string
	}{
		"peers unread": {peers: nil, activate: true},
		"no peers":     {peers: &Peers{Complete: true}, activate: true},
		"all have acknowledged": {
			peers: &Peers{
				Complete: true,
				Acknowledgements: []PeerAcknowledgement{
					{Peer: "us.test", Sequence: 7, Connected: true},
					{Peer: "ap.test", Sequence: 9},
				},
			},
			activate: true,
		},
		"one has not": {
			peers: &Peers{
				Complete:         true,
				Acknowledgements: []PeerAcknowledgement{{Peer: "us.test", Sequence: 6, Connected: true}},
			},
			waits: "Bundle sequence 7 is not acknowledged, after 15m0s, by us.test.",
		},
		"one refused it": {
			peers: &Peers{
				Complete:         true,
				Acknowledgements: []PeerAcknowledgement{{Peer: "us.test", Refusal: "rollback", Connected: true}},
			},
			waits: "by us.test (refuses it: rollback).",
		},
		"its stream closed": {
			peers: &Peers{
				Complete:         true,
				Acknowledgements: []PeerAcknowledgement{{Peer: "us.test", Sequence: 6, Silent: 29 * time.Minute}},
			},
			waits: "by us.test (no stream for 29m0s).",
		},
		"silent for six hints": {
			peers: &Peers{
				Complete:         true,
				Acknowledgements: []PeerAcknowledgement{{Peer: "us.test", Sequence: 6, Silent: 30 * time.Minute}},
			},
			activate: true,
		},
		"the leader knows nobody": {peers: &Peers{}, waits: "What peers have acknowledged is not known yet."},
		"at the deadline": {
			peers:    &Peers{Acknowledgements: []PeerAcknowledgement{{Peer: "us.test", Connected: true}}},
			at:       deadline,
			activate: true,
			alarm:    true,
		},
		"others sign": {
			peers:  &Peers{Complete: true, Acknowledgements: []PeerAcknowledgement{{Peer: "us.test", Connected: true}}},
			others: true,
			waits:  "by us.test.",
		},
		"others sign, and three hints more have passed": {
			peers: &Peers{
				Complete:         true,
				Acknowledgements: []PeerAcknowledgement{{Peer: "us.test", Connected: true}},
			}, others: true, at: now.Add(15 * time.Minute), activate: true, alarm: true,
		},
		"nobody signs": {peers: &Peers{}, unsigned: true, activate: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			first := active
			if tt.others {
				first.Member = "b"
			}
			s := Situation{
				Now: now, Member: "a", Settings: settings, Grace: time.Hour,
				Authorities: []Authority{first, prepared}, Peers: tt.peers,
				Keyless: func(string) bool { return false },
			}
			if tt.unsigned {
				s.Authorities = s.Authorities[1:]
			}
			if !tt.at.IsZero() {
				s.Now = tt.at
			}
			actions, next := planKind(s, JWT)
			_, waits := Wait(s, prepared)
			if !tt.activate {
				require.Empty(t, actions)
				require.Equal(t, now.Add(peersCheckInterval), next, "it checks again soon")
				require.Contains(t, waits,
					"It waits for peers, until its deadline at the latest; 'entente authority activate' activates "+
						"it at once.")
				require.Contains(t, waits, tt.waits)
				return
			}
			require.NotEmpty(t, actions)
			require.Equal(t, Activate, actions[0].Do)
			require.Equal(t, tt.alarm, actions[0].Alarm, actions[0].Why)
		})
	}
}
