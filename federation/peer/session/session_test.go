package session

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/federation/federationtest"
	"github.com/ententehq/entente/federation/relationship"
)

// later is a message of a kind that only a later version knows.
func later(t *testing.T) *ententev1.PeerMessage {
	m := &ententev1.PeerMessage{}
	require.NoError(
		t,
		proto.Unmarshal(
			protowire.AppendBytes(protowire.AppendTag(nil, 900, protowire.BytesType), []byte("exports")),
			m,
		),
	)
	return m
}

// TestSessionRefusesWithANamedReason: whatever ends a stream has a name from a bounded set.
func TestSessionRefusesWithANamedReason(t *testing.T) {
	many := make([]*ententev1.PeerBundleVersion, MaxDomains+1)
	for i := range many {
		many[i] = &ententev1.PeerBundleVersion{TrustDomain: "eu.test"}
	}
	hello := federationtest.Hello("us.test", "us-1")
	tests := map[string]struct {
		messages []*ententev1.PeerMessage
		reason   string
		text     string
	}{
		"no hello": {
			[]*ententev1.PeerMessage{federationtest.Heartbeat()},
			"no_hello",
			"the peer's first message is no hello",
		},
		"two hellos": {
			[]*ententev1.PeerMessage{hello, hello},
			"unexpected_hello",
			"the peer sent a second hello",
		},
		"another home domain": {
			[]*ententev1.PeerMessage{federationtest.Hello("eu.test", "us-1")},
			"identity_mismatch",
			`the peer's hello names member "us-1" of "eu.test", and its X509-SVID member us-1 of us.test`,
		},
		"another member": {
			[]*ententev1.PeerMessage{federationtest.Hello("us.test", "us-2")},
			"identity_mismatch",
			`the peer's hello names member "us-2" of "us.test", and its X509-SVID member us-1 of us.test`,
		},
		"no version": {
			[]*ententev1.PeerMessage{
				{
					Content: &ententev1.PeerMessage_Hello{
						Hello: &ententev1.PeerHello{HomeTrustDomain: "us.test", Member: "us-1"},
					},
				},
			},
			"version",
			"the peer uses version 0 of the protocol, and 1 is the first",
		},
		"too many domains": {
			[]*ententev1.PeerMessage{hello, federationtest.Subscription(many...)},
			"too_many_domains",
			"the peer wants 257 bundles; 256 are the most on one stream",
		},
		"a beat of too many": {
			[]*ententev1.PeerMessage{hello, federationtest.Heartbeat(many...)},
			"too_many_domains",
			"the peer's heartbeat names 257 bundles; 256 are the most on one stream",
		},
		"no trust domain": {
			[]*ententev1.PeerMessage{
				hello,
				federationtest.Subscription(&ententev1.PeerBundleVersion{TrustDomain: "EU\x00"}),
			},
			"malformed",
			`the peer sent the version of "EU\x00", which is no trust domain`,
		},
		"a digest of other size": {
			[]*ententev1.PeerMessage{
				hello,
				federationtest.Acknowledgement(
					&ententev1.PeerBundleVersion{TrustDomain: "eu.test", Digest: []byte{1}},
					"",
				),
			},
			"malformed",
			"the peer sent a digest of 1 bytes for eu.test",
		},
		"a bundle of nothing": {
			[]*ententev1.PeerMessage{hello, {Content: &ententev1.PeerMessage_Bundle{Bundle: &ententev1.PeerBundle{}}}},
			"malformed",
			`the peer sent a bundle of "", which is no trust domain`,
		},
		"terminated": {
			[]*ententev1.PeerMessage{
				hello,
				{
					Content: &ententev1.PeerMessage_Termination{
						Termination: &ententev1.PeerTermination{Reason: "draining", Detail: "see you\n\x1b[2J"},
					},
				},
			},
			"draining",
			"the peer ended the stream: see you  [2J",
		},
		"terminated for no known reason": {
			[]*ententev1.PeerMessage{
				hello,
				{
					Content: &ententev1.PeerMessage_Termination{
						Termination: &ententev1.PeerTermination{Reason: strings.Repeat("x", 1000)},
					},
				},
			},
			"terminated",
			"the peer ended the stream: ",
		},
		"of a later version": {[]*ententev1.PeerMessage{hello, later(t)}, "", ""},
		"an empty message":   {[]*ententev1.PeerMessage{hello, {}}, "", ""},
		"an ack of nothing sent": {
			[]*ententev1.PeerMessage{
				hello,
				federationtest.Acknowledgement(&ententev1.PeerBundleVersion{TrustDomain: "eu.test"}, ""),
			},
			"",
			"",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			now := time.Now()
			s := New("eu.test", "eu-1", "us.test", "us-1", false, now)
			var err error
			for _, m := range tt.messages {
				if _, err = s.Receive(m, World{}, now); err != nil {
					break
				}
			}
			if tt.reason == "" {
				require.NoError(t, err)
				return
			}
			require.EqualError(t, err, tt.text)
			require.Equal(t, tt.reason, ReasonOf(err))
		})
	}
}

// TestSessionAcknowledgements: only a version that this cluster knows to be its own counts as acknowledged.
func TestSessionAcknowledgements(t *testing.T) {
	now := time.Now()
	of := func(n uint64) relationship.Version {
		return relationship.Version{Sequence: n, Ordered: true, Digest: [32]byte{byte(n)}}
	}
	w := func(n uint64) World {
		return World{Hosted: map[string]Hosted{"eu.test": {Version: of(n), Document: []byte("{}")}}}
	}
	s := New("eu.test", "eu-1", "us.test", "us-1", false, now)
	say := func(world World, m *ententev1.PeerMessage) {
		t.Helper()
		_, err := s.Receive(m, world, now)
		require.NoError(t, err)
	}
	bundles := func(world World) (n int) {
		for _, m := range s.Next(world, now) {
			if m.GetBundle() != nil {
				n++
			}
		}
		return n
	}
	require.Zero(t, bundles(w(4)), "nobody wants one")
	say(w(4), federationtest.Hello("us.test", "us-1"))
	say(w(4), federationtest.Subscription(of(3).Message("eu.test")))
	require.Equal(t, 1, bundles(w(4)))
	require.Zero(t, bundles(w(4)), "it is on its way")
	require.Equal(t, Acknowledgement{Time: now}, s.Acknowledged["eu.test"])

	r, err := s.Receive(federationtest.Subscription(of(9).Message("eu.test"), of(9).Message("us.test")), w(4), now)
	require.NoError(t, err)
	require.Equal(t, map[string]uint64{"eu.test": 9}, r.Ahead, "the peer has a later version than this member")
	say(w(4), federationtest.Subscription(of(3).Message("eu.test")))
	require.Equal(t, 1, bundles(w(4)))
	forged := of(4)
	forged.Digest[0]++
	say(w(4), federationtest.Acknowledgement(forged.Message("eu.test"), ""))
	require.Zero(t, s.Acknowledged["eu.test"].Sequence, "it is another bundle's digest")
	say(w(4), federationtest.Acknowledgement(of(9).Message("eu.test"), ""))
	require.Zero(t, s.Acknowledged["eu.test"].Sequence, "there is no such version")
	say(w(4), federationtest.Acknowledgement(of(4).Message("eu.test"), ""))
	require.Equal(t, uint64(4), s.Acknowledged["eu.test"].Sequence)

	require.Equal(t, 1, bundles(w(5)))
	require.Equal(t, 1, bundles(w(7)), "six was never sent")
	say(w(7), federationtest.Acknowledgement(of(7).Message("eu.test"), "<script>"))
	require.Equal(t, Acknowledgement{4, "other", now}, s.Acknowledged["eu.test"], "refused, by a name of ours")
	require.NoError(t, s.Overdue(now.Add(SilenceTimeout)))
	require.Zero(t, bundles(w(7)), "what was refused is not sent again")
	require.Equal(t, 1, bundles(w(8)))
	now = now.Add(AcknowledgeTimeout + time.Second)
	say(w(8), federationtest.Heartbeat())
	require.EqualError(t, s.Overdue(now), "the peer did not acknowledge the bundle of eu.test within 1m0s")
	say(w(8), federationtest.Subscription())
	require.NoError(t, s.Overdue(now), "it wants it no more")
	require.Empty(t, s.Acknowledged)
}

// TestSessionSilence: the stream of a peer that sends nothing ends.
func TestSessionSilence(t *testing.T) {
	now := time.Now()
	s := New("eu.test", "eu-1", "us.test", "us-1", true, now)
	require.NoError(t, s.Overdue(now.Add(HelloTimeout)))
	require.EqualError(t, s.Overdue(now.Add(HelloTimeout+time.Second)), "the peer did not send a hello within 10s")
	_, err := s.Receive(federationtest.Hello("us.test", "us-1"), World{}, now)
	require.NoError(t, err)
	require.EqualError(t, s.Overdue(now.Add(SilenceTimeout+time.Second)), "the peer sent nothing for 31s")
}

// FuzzSessionTake: nothing that a peer sends does more than end its stream by a name from the set.
func FuzzSessionTake(f *testing.F) {
	for _, m := range []*ententev1.PeerMessage{
		federationtest.Hello("us.test", "us-1"),
		federationtest.Subscription(&ententev1.PeerBundleVersion{TrustDomain: "eu.test"}),
		federationtest.Heartbeat(), {},
	} {
		b, err := proto.Marshal(m)
		require.NoError(f, err)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m := &ententev1.PeerMessage{}
		if proto.Unmarshal(data, m) != nil {
			return
		}
		now := time.Now()
		s := New("eu.test", "eu-1", "us.test", "us-1", false, now)
		_, err := s.Receive(federationtest.Hello("us.test", "us-1"), World{}, now)
		require.NoError(t, err)
		if _, err = s.Receive(m, World{}, now); err != nil {
			require.NotEqual(t, "lost", ReasonOf(err), "%v", err)
		}
		s.Next(World{}, now)
	})
}

// TestMapConfirmationExpires: a map counts as up to date only as long as its hub confirms it.
func TestMapConfirmationExpires(t *testing.T) {
	s := New("spoke.test", "spoke-1", "hub.test", "hub-1", true, time.Unix(1_800_000_000, 0))
	now := time.Unix(1_800_000_000, 0)
	s.Greeted = true
	w := World{Plan: relationship.PeerPlan{Wanted: map[string]relationship.Holding{}}}
	s.Confirmed["hub.test"+relationship.MapSuffix] = now
	for _, after := range []time.Duration{LongestHeartbeat, 2 * LongestHeartbeat, mapConfirmedFor} {
		_, err := s.Receive(federationtest.Heartbeat(), w, now.Add(after))
		require.NoError(t, err)
		require.Contains(t, s.Confirmed, "hub.test"+relationship.MapSuffix, "after %s", after)
	}
	_, err := s.Receive(federationtest.Heartbeat(), w, now.Add(mapConfirmedFor+time.Second))
	require.NoError(t, err)
	require.NotContains(t, s.Confirmed, "hub.test"+relationship.MapSuffix, "the hub does not confirm it any more")
}
