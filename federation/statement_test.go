package federation

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/statement"
	"github.com/ententehq/entente/federation/federationtest"
	"github.com/ententehq/entente/federation/intake"
	"github.com/ententehq/entente/federation/relationship"
)

// stating is a domain that signs statements on its bundles, with an endpoint that serves them.
type stating struct {
	t          testing.TB
	us         *federationtest.Authority
	peer       *federationtest.Endpoint
	keys       map[string]*ecdsa.PrivateKey
	statements []*statement.Statement
	hidden     uint64 // statements from this sequence on are not served; 0 serves all
}

func newStating(t testing.TB) *stating {
	s := &stating{t: t, us: federationtest.NewAuthority(t, "us.example.org"), keys: map[string]*ecdsa.PrivateKey{}}
	s.peer = federationtest.NewEndpoint(t, s.us, s.version(1, "a"))
	s.peer.Statements = func(w http.ResponseWriter, r *http.Request) {
		from, err := strconv.ParseUint(r.URL.Query().Get("from"), 10, 64)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		s.peer.Mu.Lock()
		defer s.peer.Mu.Unlock()
		var list []string
		for _, stmt := range s.statements {
			if stmt.Sequence() >= from && (s.hidden == 0 || stmt.Sequence() < s.hidden) {
				list = append(list, stmt.String())
			}
		}
		_, _ = w.Write(statement.MarshalList(s.us.TrustDomain, list))
	}
	return s
}

func (s *stating) key(kid string) *ecdsa.PrivateKey {
	if s.keys[kid] == nil {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		require.NoError(s.t, err)
		s.keys[kid] = key
	}
	return s.keys[kid]
}

// version returns a bundle with one JWT key.
func (s *stating) version(sequence uint64, kid string) *bundle.Bundle {
	b, err := s.us.Bundle(s.t, sequence).
		With(func(c *bundle.Content) { c.JWTAuthorities = map[string]crypto.PublicKey{kid: s.key(kid).Public()} })
	require.NoError(s.t, err)
	return b
}

func (s *stating) sign(claims statement.Claims, kid string) *statement.Statement {
	stmt, err := statement.New(claims, kid, func(input []byte) ([]byte,
		error) {
		return s.signature(kid, sha256.Sum256(input))
	})
	require.NoError(s.t, err)
	return stmt
}

// signature returns a signature in the form of a JWS, by a named key.
func (s *stating) signature(kid string, sum [32]byte) ([]byte, error) {
	r, n, err := ecdsa.Sign(rand.Reader, s.key(kid), sum[:])
	if err != nil {
		return nil, err
	}
	return append(r.FillBytes(make([]byte, 32)), n.FillBytes(make([]byte, 32))...), nil
}

// publish serves a version with its statement, signed by the key of the version before, or by another key if one is
// named.
func (s *stating) publish(sequence uint64, kid, by string) *bundle.Bundle {
	b := s.version(sequence, kid)
	claims := statement.Claims{
		TrustDomain: s.us.TrustDomain,
		Sequence:    sequence,
		Keys:        b.Digest(),
		Issued:      time.Unix(1_800_000_000, 0),
		Next:        statement.Signers(b, func(string) bool { return false }),
	}
	if n := len(s.statements); n > 0 {
		claims.Previous = s.statements[n-1].Digest()
	} else {
		claims.Start = statement.StartNoSigner
	}
	stmt := s.sign(claims, by)
	s.peer.Mu.Lock()
	s.statements = append(s.statements, stmt)
	s.peer.Mu.Unlock()
	s.peer.Serve(b)
	return b
}

func alarmNames(r *ententev1.Relationship) (names []string) {
	for _, a := range r.GetAlarms() {
		names = append(names, a.GetName())
	}
	return names
}

func TestStatementsAreVerified(t *testing.T) {
	r := newRoom(t)
	s := newStating(t)
	first := s.publish(1, "a", "a")
	r.create(t, spiffeRelationship(s.us, s.peer), first)
	out := r.refresh(t, "us.example.org")
	require.Empty(t, out.GetLastError())
	require.Equal(t, uint64(1), out.GetStatedSequence())

	s.publish(2, "b", "a")
	s.publish(3, "c", "b") // 2 is never seen
	require.Equal(t, uint64(3), r.refresh(t, "us.example.org").GetStatedSequence())
	versions, content, err := relationship.History(r.store.View(), "us.example.org")
	require.NoError(t, err)
	require.Len(t, versions, 2)
	require.Equal(t, "bootstrap by anonymous", versions[0].GetSource())
	require.Equal(t, "endpoint "+s.peer.URL, versions[1].GetSource())
	b, err := content(versions[1])
	require.NoError(t, err)
	require.True(t, b.Equal(s.version(3, "c")))

	// An endpoint without statements for a moment raises no alarm yet.
	shownStatements := s.peer.Statements
	s.peer.Statements = http.NotFound
	s.publish(4, "c", "c")
	out = r.refresh(t, "us.example.org")
	require.Empty(t, alarmNames(out))
	require.Equal(t, uint64(3), out.GetStatedSequence())
	s.peer.Statements = shownStatements
	require.Equal(t, uint64(4), r.refresh(t, "us.example.org").GetStatedSequence())

	// Without news there is no request and no write.
	written, asked := r.store.View().Revision(), s.peer.Requests()
	require.Empty(t, alarmNames(r.refresh(t, "us.example.org")))
	require.Equal(t, written, r.store.View().Revision())
	require.Equal(t, asked+1, s.peer.Requests())

	// The history is deleted with the relationship.
	_, err = r.service.DeleteRelationship(t.Context(),
		&ententev1.DeleteRelationshipRequest{TrustDomain: "us.example.org"})
	require.NoError(t, err)
	_, found, err := relationship.ForeignHistory.Get(r.store.View(), "us.example.org")
	require.NoError(t, err)
	require.False(t, found)
}

func TestAlarms(t *testing.T) {
	for _, test := range []struct {
		name  string
		do    func(s *stating)
		alarm string
		text  string
	}{
		{"a key that is not named", func(s *stating) { s.publish(3, "x", "x") }, relationship.AlarmBrokenChain,
			"the statement is signed by a key that may not sign it"},
		{"a chain that restarts", func(s *stating) { s.statements = nil; s.publish(3, "x", "x") },
			relationship.AlarmNewChain, "restarts (no_signer)"},
		{"a statement is left out", func(s *stating) {
			s.publish(3, "b", "b")
			s.statements = nil
			s.publish(4, "b",
				"b")
		}, relationship.AlarmNewChain, "restarts"},
		{"statements between are missing", func(s *stating) {
			s.publish(3, "b", "b")
			s.publish(4, "b", "b")
			s.statements = s.statements[3:]
		}, relationship.AlarmBrokenChain,
			"that of sequence 4 names another statement before it than that of sequence 2"},
		{"nonsense", func(s *stating) {
			s.publish(3, "b", "b")
			s.peer.Statements = func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) }
		}, relationship.AlarmBrokenChain, "the document is malformed"},
		{"a statement on other keys", func(s *stating) {
			s.publish(3, "b", "b")
			s.peer.Serve(s.version(3, "x"))
		}, relationship.AlarmSplitView, "under sequence 3"},
		{"other keys under a known sequence", func(s *stating) { s.peer.Serve(s.version(2, "x")) },
			relationship.AlarmSplitView, "under sequence 2"},
		{"other keys under an old sequence", func(s *stating) { s.peer.Serve(s.version(1, "x")) },
			relationship.AlarmSplitView, "under sequence 1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := newRoom(t)
			s := newStating(t)
			r.create(t, spiffeRelationship(s.us, s.peer), s.publish(1, "a", "a"))
			require.Equal(t, uint64(1), r.refresh(t, "us.example.org").GetStatedSequence())
			s.publish(2, "b", "a")
			require.Empty(t, alarmNames(r.refresh(t, "us.example.org")))
			test.do(s)
			out := r.refresh(t, "us.example.org")
			require.Equal(t, []string{test.alarm}, alarmNames(out))
			require.Contains(t, out.GetAlarms()[0].GetDetail(), test.text)
			require.Equal(t, ententev1.Freshness_FRESHNESS_FRESH, out.GetFreshness(), "trust goes on")
			require.Contains(t, r.ledger.Decisions(), "raise alarm us.example.org: "+test.alarm)

			// It is raised once, and cleared by an operator's bundle.
			written := r.store.View().Revision()
			require.Equal(t, []string{test.alarm}, alarmNames(r.refresh(t, "us.example.org")))
			require.Equal(t, written, r.store.View().Revision())
			out, err := r.service.UpdateRelationship(t.Context(), &ententev1.UpdateRelationshipRequest{
				Relationship: &ententev1.Relationship{
					TrustDomain: "us.example.org",
				}, BootstrapBundle: r.stored(t, "us.example.org").Marshal(),
			})
			require.NoError(t, err)
			require.Empty(t, out.GetAlarms())
		})
	}
}

// TestMissingStatement tests that a statement may be late, and that one that is missing for long raises an alarm.
func TestMissingStatement(t *testing.T) {
	s := newStating(t)
	h := &statev1.ForeignHistory{TrustDomain: "us.example.org"}
	now := time.Unix(1_800_000_000, 0)
	record := func(b *bundle.Bundle) {
		rec, err := statement.Record(b, h.GetVersions(), "endpoint", now, statement.ForeignDepth)
		require.NoError(t, err)
		h.Versions = statement.Recount(h.GetVersions(), rec)
	}
	record(s.publish(1, "a", "a"))
	judge := func(statements []*statement.Statement, after time.Duration) []relationship.Alarm {
		alarms, _ := intake.JudgeStatements(h, statements, now.Add(after), time.Minute)
		return alarms
	}
	require.Empty(t, judge(s.statements, 0))
	from, due := intake.StatementsDue(h)
	require.False(t, due)
	require.Zero(t, from)
	record(s.version(2, "b"))
	from, due = intake.StatementsDue(h)
	require.True(t, due)
	require.Equal(t, uint64(2), from)
	require.Empty(t, judge(nil, 3*time.Minute))
	late := judge(nil, 3*time.Minute+time.Second)
	require.Equal(
		t,
		[]relationship.Alarm{
			{
				Name:     relationship.AlarmBrokenChain,
				Sequence: 2,
				Detail:   "there is no statement on sequence 2, and there was one on 1",
			},
		},
		late,
	)
	s.publish(2, "b", "a")
	require.Empty(t, judge(s.statements, time.Hour), "one that comes late is as good")
}

// TestResetForgetsHistory tests that a rebuilt peer starts at sequence 1, and that its earlier history does not count.
func TestResetForgetsHistory(t *testing.T) {
	r := newRoom(t)
	s := newStating(t)
	r.create(t, spiffeRelationship(s.us, s.peer), s.publish(1, "a", "a"))
	r.refresh(t, "us.example.org")
	s.publish(5, "b", "a")
	r.refresh(t, "us.example.org")
	s.statements = nil
	rebuilt := s.publish(1, "x", "x")
	require.Equal(t, []string{relationship.AlarmSplitView}, alarmNames(r.refresh(t, "us.example.org")))
	out, err := r.service.UpdateRelationship(t.Context(), &ententev1.UpdateRelationshipRequest{
		Relationship: &ententev1.Relationship{
			TrustDomain: "us.example.org",
		}, BootstrapBundle: rebuilt.Marshal(), ResetSequence: true,
	})
	require.NoError(t, err)
	require.Empty(t, out.GetAlarms())
	require.Equal(t, uint64(1), r.refresh(t, "us.example.org").GetStatedSequence())
	s.publish(2, "x", "x")
	s.publish(5, "y", "x")
	out = r.refresh(t, "us.example.org")
	require.Empty(t, alarmNames(out))
	require.Equal(t, uint64(5), out.GetStatedSequence())
}
