package federation

import (
	"crypto/rand"
	"crypto/sha256"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/statement"
	"github.com/ententehq/entente/federation/federationtest"
	"github.com/ententehq/entente/federation/intake"
	"github.com/ententehq/entente/federation/peer"
	"github.com/ententehq/entente/federation/peer/session"
	"github.com/ententehq/entente/federation/receiver"
	"github.com/ententehq/entente/federation/relationship"
	"github.com/ententehq/entente/trust/standing"
)

// TestClassifyStatements tests which statements are the peer's fault. One that is early, or contradicts the state of
// this cluster, may not be.
func TestClassifyStatements(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	// stored is the history of versions whose statements were checked up to one.
	stored := func(s *stating, versions, stated int) *statev1.ForeignHistory {
		h := &statev1.ForeignHistory{TrustDomain: "us.example.org"}
		for n := 1; n <= versions; n++ {
			require.NoError(t, relationship.AddVersion(h, s.version(uint64(n), "a"), "endpoint", false, now))
			if n <= stated {
				alarms, came := intake.JudgeStatements(h, s.statements[:n], now, time.Minute)
				require.Empty(t, alarms)
				require.Equal(t, intake.StatementsTaken, came)
			}
		}
		return h
	}
	unordered := func(s *stating) *statev1.ForeignHistory {
		h := &statev1.ForeignHistory{TrustDomain: "us.example.org"}
		b, err := s.version(1, "a").With(func(c *bundle.Content) { c.Sequence = nil })
		require.NoError(t, err)
		require.NoError(t, relationship.AddVersion(h, b, "endpoint", false, now))
		return h
	}
	// after is a statement of the third version, signed by a key under a name.
	after := func(s *stating, kid, by string, change func(*statement.Claims)) []*statement.Statement {
		b := s.version(3, "a")
		claims := statement.Claims{
			TrustDomain: s.us.TrustDomain,
			Sequence:    3,
			Keys:        b.Digest(),
			Issued:      now,
			Previous:    s.statements[1].Digest(),
			Next:        statement.Signers(b, func(string) bool { return false }),
		}
		if change != nil {
			change(&claims)
		}
		stmt, err := statement.New(claims, kid, func(input []byte) ([]byte,
			error) {
			return s.signature(by, sha256.Sum256(input))
		})
		require.NoError(t, err)
		return []*statement.Statement{stmt}
	}
	all := func(s *stating) []*statement.Statement { return s.statements }
	last := func(s *stating) []*statement.Statement { return s.statements[2:] }
	for _, test := range []struct {
		name    string
		stored  func(s *stating) *statev1.ForeignHistory
		brought func(s *stating) []*statement.Statement
		came    string
		fault   peer.Fault
		alarms  []string
	}{
		{"the first that are ever seen", func(s *stating) *statev1.ForeignHistory { return stored(s, 3, 0) },
			all, intake.StatementsTaken, peer.FaultNone, nil},
		{"that of the version that has just come", func(s *stating) *statev1.ForeignHistory { return stored(s, 3, 2) },
			last, intake.StatementsTaken, peer.FaultNone, nil},
		{"known already", func(s *stating) *statev1.ForeignHistory { return stored(s, 3, 3) },
			all, intake.StatementsTaken, peer.FaultNone, nil},
		{"on a version that has not come yet", func(s *stating) *statev1.ForeignHistory { return stored(s, 2, 2) },
			last, intake.StatementsEarly, peer.FaultUnclear, nil},
		{"known, and on one that has not come yet", func(s *stating) *statev1.ForeignHistory { return stored(s, 2, 2) },
			all, intake.StatementsEarly, peer.FaultUnclear, nil},
		{"before any bundle", func(s *stating) *statev1.ForeignHistory { return stored(s, 0, 0) },
			all, intake.StatementsEarly, peer.FaultUnclear, nil},
		{"on a bundle without a sequence", unordered,
			all, intake.StatementsEarly, peer.FaultUnclear, nil},
		{"statements between are missing", func(s *stating) *statev1.ForeignHistory { return stored(s, 3, 1) },
			last, intake.StatementsTaken, peer.FaultNone, []string{relationship.AlarmBrokenChain}},
		{"the chain restarts", func(s *stating) *statev1.ForeignHistory { return stored(s, 3, 2) },
			func(s *stating) []*statement.Statement {
				return after(s, "a", "a", func(c *statement.Claims) {
					c.Previous, c.Start = [32]byte{}, statement.StartNoSigner
				})
			}, intake.StatementsTaken, peer.FaultNone, []string{relationship.AlarmNewChain}},
		{"by a key that is not named, as one that was prepared in a version that was missed",
			func(s *stating) *statev1.ForeignHistory { return stored(s, 3, 2) },
			func(s *stating) []*statement.Statement {
				return after(s, "x", "x", nil)
			}, intake.StatementsTaken, peer.FaultNone, []string{relationship.AlarmBrokenChain}},
		{"a signature that does not verify", func(s *stating) *statev1.ForeignHistory { return stored(s, 3, 2) },
			func(s *stating) []*statement.Statement {
				return after(s, "a", "x", nil)
			}, "statement_signature", peer.FaultUnclear, []string{relationship.AlarmBrokenChain}},
		{"on other keys than are stored", func(s *stating) *statev1.ForeignHistory { return stored(s, 3, 2) },
			func(s *stating) []*statement.Statement {
				return after(s, "a", "a", func(c *statement.Claims) { c.Keys[0]++ })
			}, relationship.AlarmSplitView, peer.FaultUnclear, []string{relationship.AlarmSplitView}},
		{"a stored statement that cannot be read", func(s *stating) *statev1.ForeignHistory {
			h := stored(s, 3, 2)
			h.Statement = "?"
			return h
		}, last, intake.StatementsUnjudged, peer.FaultNone, []string{relationship.AlarmBrokenChain}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := chain(t, 3)
			raised, came := intake.JudgeStatements(test.stored(s), test.brought(s), now, time.Minute)
			require.Equal(t, test.came, came)
			require.Equal(t, test.fault, receiver.FaultOf(came))
			var names []string
			for _, a := range raised {
				names = append(names, a.Name)
			}
			require.Equal(t, test.alarms, names)
		})
	}
}

// shownRefused returns messages without valid statements, and the names of their refusals.
func shownRefused(s *stating) (messages []*ententev1.PeerMessage, reasons []string) {
	for reason, document := range map[string][]byte{
		"malformed": []byte("garbage"), "no_statements": statement.MarshalList(s.us.TrustDomain, nil),
		"bad_statement": []byte(`{"trust_domain":"us.example.org","statements":["a.b.c"]}`), "too_large": make([]byte,
			statement.MaxListBytes+1),
	} {
		messages, reasons = append(messages, statementsOf("us.example.org", document)), append(reasons, reason)
	}
	return messages, reasons
}

func bundleOf(td string, document []byte) *ententev1.PeerMessage {
	return &ententev1.PeerMessage{
		Content: &ententev1.PeerMessage_Bundle{Bundle: &ententev1.PeerBundle{TrustDomain: td, Document: document}},
	}
}

// stateWith returns a site that receives the statements of a domain only over a stream.
func stateWith(t *testing.T, s *stating, adjust ...func(*Config)) *site {
	a := newSite(t, "eu.example.org", adjust...)
	s.hidden = 1 // the endpoint serves none
	rel := spiffeRelationship(s.us, s.peer)
	rel.Peer = &ententev1.Peer{HomeTrustDomain: "us.example.org"}
	a.create(t, rel, s.version(1, "a"))
	until(t,
		"the relationships to be read", func() bool { return len(a.manager.streams.Domains("us.example.org")) == 1 })
	return a
}

// state sends messages on a stream, until it ends.
func (s *site) state(
	t *testing.T,
	us *stating,
	messages ...*ententev1.PeerMessage,
) ententev1.PeerService_ExchangeClient {
	t.Helper()
	call := s.intrude(t, us.us, "/entente/member/member-1")
	hello := federationtest.Hello("us.example.org", "member-1")
	for _, m := range append([]*ententev1.PeerMessage{hello}, messages...) {
		if call.Send(&ententev1.ExchangeRequest{Message: m}) != nil {
			break // the stream was refused with a reason
		}
	}
	return call
}

// TestRefusedStatementsEndStream tests that refused statements end a stream by name, as refused bundles do, and that a
// peer that opens streams again and again does not fill the log.
func TestRefusedStatementsEndStream(t *testing.T) {
	var log journal
	us := chain(t, 1)
	a := stateWith(t, us, withLog(&log))
	kinds, reasons := shownRefused(us)
	for _, reason := range reasons {
		require.Equal(t, peer.FaultPeer, receiver.FaultOf(reason), reason)
	}
	const streams = 4
	for n := range streams {
		var messages []*ententev1.PeerMessage
		for i := range session.MaxRefusals + 1 {
			messages = append(messages, kinds[i%len(kinds)])
		}
		termination, _ := ended(a.state(t, us, messages...))
		require.Equal(t, "refused_statements", termination.GetReason())
		require.Contains(t, termination.GetDetail(),
			"more than 32 bundles and statements that the peer sent were refused")
		until(t, "the metric", func() bool {
			return a.streamsEnded(t, "refused_statements") == float64(n+1)
		})
	}
	for _, reason := range reasons {
		require.GreaterOrEqual(t, testutil.ToFloat64(a.manager.intake.StatementsTotal.WithLabelValues(reason)),
			float64(streams*session.MaxRefusals/len(reasons)), reason)
	}
	until(t, "the end to be shown", func() bool {
		shown := a.show(t, "us.example.org").GetStreams()
		return len(shown) == 1 && !shown[0].GetConnected() && shown[0].GetLastResult() == "refused_statements" &&
			strings.Contains(shown[0].GetLastError(), "were refused")
	})
	warned := slices.DeleteFunc(log.lines("statements from a peer refused"),
		func(line string) bool { return !strings.Contains(line, "[WARN]") })
	require.NotEmpty(t, warned)
	require.Less(t, len(warned), streams*session.MaxRefusals, "of all that were refused")
	require.Equal(t, standing.Bootstrap, a.trust(t, "us.example.org"), "trust does not depend on statements")

	// Refused bundles and statements add up.
	var mixed []*ententev1.PeerMessage
	for range session.MaxRefusals/2 + 1 {
		mixed = append(mixed, bundleOf("us.example.org", []byte("garbage")), kinds[0])
	}
	termination, _ := ended(a.state(t, us, mixed...))
	require.Contains(t, []string{"refused_statements", "refused_bundles"}, termination.GetReason())
}

// TestRefusedBundleLogIsLimited tests that a peer that opens streams again and again does not fill the log or the audit
// log. The metric counts all refusals.
func TestRefusedBundleLogIsLimited(t *testing.T) {
	var log journal
	us := chain(t, 1)
	a := stateWith(t, us, withLog(&log))
	const streams = 4
	for range streams {
		var messages []*ententev1.PeerMessage
		for range session.MaxRefusals + 1 {
			messages = append(messages, bundleOf("us.example.org", []byte(rand.Text())))
		}
		termination, _ := ended(a.state(t, us, messages...))
		require.Equal(t, "refused_bundles", termination.GetReason())
	}
	require.GreaterOrEqual(t, a.metric(t, "entente_federation_stream_bundles_total", "result", "malformed"),
		float64(streams*session.MaxRefusals))
	audited := slices.DeleteFunc(a.ledger.Decisions(),
		func(line string) bool { return line != "refuse bundle us.example.org: malformed" })
	warned := slices.DeleteFunc(log.lines("bundle from a peer refused"),
		func(line string) bool { return !strings.Contains(line, "[WARN]") })
	for _, lines := range [][]string{audited, warned} {
		require.NotEmpty(t, lines)
		require.Less(t, len(lines), streams*session.MaxRefusals, "of all that were refused")
	}
}

// TestUnwantedBundlesAreIgnored tests that bundles in flight while an operator ended the relationships do not end the
// stream.
func TestUnwantedBundlesAreIgnored(t *testing.T) {
	us := chain(t, 1)
	a := stateWith(t, us)
	var messages []*ententev1.PeerMessage
	for range session.MaxRefusals + 1 {
		messages = append(messages, bundleOf("ap.example.org", []byte("{}")))
	}
	call := a.state(t, us, append(messages, bundleOf("us.example.org", us.version(2, "a").Marshal()))...)
	a.awaitSequence(t, "us.example.org", 2)
	for range peer.ExcuseBurst {
		if call.Send(&ententev1.ExchangeRequest{Message: messages[0]}) != nil {
			break
		}
	}
	termination, _ := ended(call)
	require.Equal(t, "refused_bundles", termination.GetReason())
}

// TestEarlyStatementsAreIgnored tests that statements ahead of their bundles, or on unsubscribed domains, are ignored
// and the stream continues. A peer that sends nothing else is refused in the end.
func TestEarlyStatementsAreIgnored(t *testing.T) {
	us := chain(t, 3)
	a := stateWith(t, us)
	early := statementsOf("us.example.org", statement.MarshalList(us.us.TrustDomain, us.compact(3)[1:]))
	unwanted := statementsOf("ap.example.org", statement.MarshalList(us.us.TrustDomain, us.compact(3)))
	messages := []*ententev1.PeerMessage{
		statementsOf("us.example.org", statement.MarshalList(us.us.TrustDomain, us.compact(1))),
	}
	for range session.MaxRefusals + 1 {
		messages = append(messages, early, unwanted)
	}
	call := a.state(t, us, append(messages, bundleOf("us.example.org", us.version(3, "a").Marshal()), early)...)
	until(t, "the statement on 3", func() bool { return a.show(t, "us.example.org").GetStatedSequence() == 3 })
	require.Empty(t, a.show(t, "us.example.org").GetAlarms())
	require.True(t, a.show(t, "us.example.org").GetStreams()[0].GetConnected(), "the same stream")

	// Statements on versions that never arrive follow.
	us.publish(4, "a", "a")
	early = statementsOf("us.example.org", statement.MarshalList(us.us.TrustDomain, us.compact(4)[3:]))
	for range peer.ExcuseBurst + session.MaxRefusals + 1 {
		if call.Send(&ententev1.ExchangeRequest{Message: early}) != nil {
			break
		}
	}
	termination, _ := ended(call)
	require.Equal(t, "refused_statements", termination.GetReason())
	require.Contains(t, termination.GetDetail(), intake.StatementsEarly)
}
