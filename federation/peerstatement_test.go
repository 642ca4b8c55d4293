package federation

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle/statement"
	"github.com/ententehq/entente/federation/federationtest"
	"github.com/ententehq/entente/federation/intake"
	"github.com/ententehq/entente/federation/peer/session"
	"github.com/ententehq/entente/federation/relationship"
)

func statementsOf(td string, document []byte) *ententev1.PeerMessage {
	return &ententev1.PeerMessage{
		Content: &ententev1.PeerMessage_Statements{
			Statements: &ententev1.PeerStatements{TrustDomain: td, Document: document},
		},
	}
}

// chain returns a domain with statements on its versions up to a sequence.
func chain(t *testing.T, until uint64) *stating {
	s := newStating(t)
	for n := uint64(1); n <= until; n++ {
		s.publish(n, "a", "a")
	}
	return s
}

// compact returns the statements on the versions up to a sequence.
func (s *stating) compact(until uint64) (list []string) {
	for _, stmt := range s.statements[:until] {
		list = append(list, stmt.String())
	}
	return list
}

// TestStatementsFollowVersions tests that a peer receives the statements that it lacks, on versions that it has or
// receives, each once.
func TestStatementsFollowVersions(t *testing.T) {
	us := chain(t, 6)
	of := func(n uint64) relationship.Version {
		return relationship.Version{Sequence: n, Ordered: true, Digest: [32]byte{byte(n)}}
	}
	world := func(sequence, stated uint64) session.World {
		return session.World{Hosted: map[string]session.Hosted{"us.example.org": {
			Version: of(sequence), Document: []byte("{}"),
			Statements: statement.NewList(us.us.TrustDomain, us.compact(stated)),
		}}}
	}
	wants := func(v relationship.Version, from ...uint64) *ententev1.PeerMessage {
		named := v.Message("us.example.org")
		if len(from) > 0 {
			named.StatementsFrom = &from[0]
		}
		return federationtest.Subscription(named)
	}
	for _, test := range []struct {
		name     string
		interest *ententev1.PeerMessage
		then     func(s *session.Session, say func(*ententev1.PeerMessage))
		now      session.World // after the peer has subscribed
		brought  []uint64
	}{
		{"one that has the version before", wants(of(4), 5), nil, world(5, 5), []uint64{5}},
		{"one that does not list what it lacks", wants(of(4)), nil, world(5, 5), []uint64{5}},
		{"one that lacks older ones too", wants(of(4), 3), nil, world(5, 5), []uint64{3, 4, 5}},
		{"one that has the version, and not its statement", wants(of(5), 5), nil, world(5, 5), []uint64{5}},
		{"one that has all", wants(of(5)), nil, world(5, 5), nil},
		{"one that has nothing", wants(relationship.Version{}), nil, world(5, 5), []uint64{5}},
		{"one that skipped a version", wants(of(3), 4), nil, world(5, 5), []uint64{4, 5}},
		{"one that has what is not known here", wants(relationship.Version{Sequence: 9, Ordered: true,
			Digest: [32]byte{99}}, 1), nil, world(5, 5), nil},
		{"no statement was signed yet", wants(of(4), 5), nil, world(5, 4), nil},
		{"one signed after its version was sent", wants(of(4), 5),
			func(s *session.Session, _ func(*ententev1.PeerMessage)) {
				_ = s.Next(world(5, 4), time.Now())
			}, world(5, 5), []uint64{5}},
		{"nothing is brought again", wants(of(4), 5), func(s *session.Session, _ func(*ententev1.PeerMessage)) {
			_ = s.Next(world(5, 5), time.Now())
		}, world(5, 5), nil},
		{"nor after another subscription", wants(of(4), 1), func(s *session.Session, say func(*ententev1.PeerMessage)) {
			_ = s.Next(world(5, 5), time.Now())
			say(wants(of(4), 1))
		}, world(5, 5), nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := session.New("us.example.org", "us-1", "eu.example.org", "eu-1", false, time.Now())
			say := func(m *ententev1.PeerMessage) {
				_, err := s.Receive(m, session.World{}, time.Now())
				require.NoError(t, err)
			}
			say(federationtest.Hello("eu.example.org", "eu-1"))
			say(test.interest)
			if test.then != nil {
				test.then(s, say)
			}
			var brought []uint64
			for _, m := range s.Next(test.now, time.Now()) {
				if m.GetStatements() == nil {
					continue
				}
				list, err := statement.ParseList(us.us.TrustDomain, m.GetStatements().GetDocument())
				require.NoError(t, err)
				for _, stmt := range list {
					brought = append(brought, stmt.Sequence())
				}
			}
			require.Equal(t, test.brought, brought)
		})
	}
}

// TestStatementsOverStream tests that statements over a stream are verified like those of an endpoint, and that an
// invalid one does not end the stream.
func TestStatementsOverStream(t *testing.T) {
	a, us := newSite(t, "eu.example.org"), chain(t, 2)
	us.hidden = 1 // the endpoint serves none
	rel := spiffeRelationship(us.us, us.peer)
	rel.Peer = &ententev1.Peer{HomeTrustDomain: "us.example.org"}
	a.create(t, rel, us.version(1, "a"))
	until(t,
		"the relationships to be read", func() bool { return len(a.manager.streams.Domains("us.example.org")) == 1 })

	call := a.intrude(t, us.us, "/entente/member/member-1")
	send := func(messages ...*ententev1.PeerMessage) {
		for _, m := range messages {
			require.NoError(t, call.Send(&ententev1.ExchangeRequest{Message: m}))
		}
	}
	counted := func(result string) func() bool {
		return func() bool { return testutil.ToFloat64(a.manager.intake.StatementsTotal.WithLabelValues(result)) >= 1 }
	}
	ap := federationtest.NewAuthority(t, "ap.example.org").TrustDomain
	send(federationtest.Hello("us.example.org", "member-1"),
		statementsOf("us.example.org", []byte("garbage")),
		statementsOf("us.example.org", statement.MarshalList(ap, nil)),
		statementsOf("ap.example.org", statement.MarshalList(us.us.TrustDomain, us.compact(2))))
	for _, result := range []string{"malformed", "bad_statement", relationship.ReasonNotWanted} {
		until(t, "the refusal "+result, counted(result))
	}
	stated := func() *uint64 {
		sequence, err := intake.StatedSequence(a.store.View(), "us.example.org")
		require.NoError(t, err)
		return sequence
	}
	require.Nil(t, stated())

	// The same stream sends a version with its statements.
	send(
		statementsOf("us.example.org", statement.MarshalList(us.us.TrustDomain, us.compact(1))),
		&ententev1.PeerMessage{
			Content: &ententev1.PeerMessage_Bundle{
				Bundle: &ententev1.PeerBundle{TrustDomain: "us.example.org", Document: us.version(2, "a").Marshal()},
			},
		},
		statementsOf("us.example.org", statement.MarshalList(us.us.TrustDomain, us.compact(2)[1:])),
	)
	until(t, "the statement on 2", func() bool { s := stated(); return s != nil && *s == 2 })
}
