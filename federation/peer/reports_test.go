package peer

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/federation/peer/session"
)

// TestLeaderKnowledgeIsComplete: the knowledge of a new leader is complete once every member has reported its streams,
// and the peers had time to return or are all connected.
func TestLeaderKnowledgeIsComplete(t *testing.T) {
	wants := map[string]session.Acknowledgement{"eu.example.org": {Sequence: 7}}
	for _, test := range []struct {
		name     string
		alive    []string
		reported map[string]map[string]observation // by member and peer
		peers    []string
		read     bool
		since    time.Duration
		known    bool
	}{
		{"no peer at all", []string{"eu-1"}, map[string]map[string]observation{"eu-1": nil}, nil, true, 0, true},
		{
			"relationships not read yet", []string{"eu-1"}, map[string]map[string]observation{"eu-1": nil}, nil,
			false, 0, false,
		},
		{
			"a member has not reported", []string{"eu-1", "eu-2"}, map[string]map[string]observation{"eu-1": nil}, nil,
			true, time.Hour, false,
		},
		{"no member is alive", nil, nil, nil, true, time.Hour, false},
		{"a peer is connected", []string{"eu-1", "eu-2"}, map[string]map[string]observation{
			"eu-1": nil, "eu-2": {"us.example.org": {known: true, connected: true, acknowledged: wants}},
		}, []string{"us.example.org"}, true, 0, true},
		{"a peer is connected, and has not sent what it wants", []string{"eu-1"}, map[string]map[string]observation{
			"eu-1": {"us.example.org": {known: true, connected: true}},
		}, []string{"us.example.org"}, true, 0, false},
		{"a peer is not connected", []string{"eu-1"}, map[string]map[string]observation{
			"eu-1": {"us.example.org": {known: true, acknowledged: wants}},
		}, []string{"us.example.org"}, true, 0, false},
		{"one of two peers is connected", []string{"eu-1"}, map[string]map[string]observation{
			"eu-1": {"us.example.org": {known: true, connected: true, acknowledged: wants}},
		}, []string{"ap.example.org", "us.example.org"}, true, 0, false},
		{
			"the peers had their time", []string{"eu-1"}, map[string]map[string]observation{"eu-1": nil},
			[]string{"us.example.org"}, true, returnTime, true,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
			clock := func() time.Time { return now }
			alive := func() ([]string, error) { return test.alive, nil }
			homes := func() ([]string, bool) { return test.peers, test.read }
			leader := newReports(clock, alive, homes)
			leader.Reset()
			for member, observed := range test.reported {
				section := newReports(clock, alive, homes)
				for home, o := range observed {
					section.update(home, func(n *observation) { *n = o })
				}
				leader.Deliver(member, section.Collect(true))
			}
			now = now.Add(test.since)
			encoded, err := leader.Answer(nil)
			require.NoError(t, err)
			answer := &statev1.PeerAnswer{}
			require.NoError(t, proto.Unmarshal(encoded, answer))
			require.Equal(t, test.known, answer.GetComplete())
		})
	}
}
