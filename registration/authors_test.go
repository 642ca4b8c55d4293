package registration_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/ententehq/entente/access"
	"github.com/ententehq/entente/access/grant"
	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/registration"
	"github.com/ententehq/entente/registration/agenttoken"
)

const ci = "spiffe://eu.example.org/ci"

// granted gives a grant and returns it.
func (s *services) granted(t *testing.T, m *ententev1.Grant) grant.Grant {
	t.Helper()
	g, err := grant.Parse(m)
	require.NoError(t, err)
	_, err = s.store.Update(t.Context(), func(tx *raftstore.Tx) error {
		_, err := grant.Create(tx, g, grant.Origin{By: "test", On: s.store.MemberID(), At: time.Now()})
		return err
	})
	require.NoError(t, err)
	return g
}

func (s *services) revoked(t *testing.T, g grant.Grant) {
	t.Helper()
	_, err := s.store.Update(t.Context(), func(tx *raftstore.Tx) error {
		return grant.Revoke(tx, g, "", "test", time.Now())
	})
	require.NoError(t, err)
}

// written stores an entry as it is after its author wrote it: the guard, which is not here, has permitted that.
func (s *services) written(t *testing.T, by, id string, dns ...string) {
	t.Helper()
	_, err := s.entries.CreateEntry(administrator(t), &ententev1.CreateEntryRequest{Entry: &ententev1.Entry{
		Id: id, Agent: "node-1", SpiffeId: "spiffe://eu.example.org/apps/" + id, Selectors: []string{"unix:uid:1"},
		DnsNames: dns,
	}})
	require.NoError(t, err)
	_, err = s.store.Update(t.Context(), func(tx *raftstore.Tx) error {
		return registration.Rewrite(tx, id, func(e *statev1.RegistrationEntry) { e.WrittenBy = by })
	})
	require.NoError(t, err)
}

// issue has an SVID issued by an entry.
func (s *services) issue(t *testing.T, n node, id string) error {
	t.Helper()
	agentID, err := registration.AgentID(home, "node-1")
	require.NoError(t, err)
	ctx := access.WithCaller(t.Context(), access.SVIDCaller(agentID))
	answer, err := s.nodes.IssueEntryX509SVIDs(ctx, &ententev1.IssueEntryX509SVIDsRequest{
		Requests: []*ententev1.EntryX509Request{{EntryId: id, Csr: n.csr}},
	})
	require.NoError(t, err)
	f := answer.GetResults()[0].GetFailure()
	return status.Error(codes.Code(f.GetCode()), f.GetMessage()) //nolint:gosec // a gRPC code
}

// TestEntriesEndWithTheGrantOfTheirAuthor tests that nothing is issued by an entry whose author could not write it now:
// the grant was revoked, is for another path or for other DNS names by now. Somebody else who may confirms it.
func TestEntriesEndWithTheGrantOfTheirAuthor(t *testing.T) {
	s := room(t)
	token, n := s.token(t, "node-1"), newNode(t)
	require.NoError(t, s.attestNode(t, n, &token))
	issuer := func(path string, dns ...string) grant.Grant {
		return s.granted(t, &ententev1.Grant{
			Role: grant.Issuer, SpiffeId: ci, TrustDomain: home.Name(), PathPrefix: path, DnsNames: dns,
		})
	}
	wide := issuer("/apps", ".example.org")
	s.written(t, ci, "web")
	s.written(t, ci, "named", "web.example.org")
	s.written(t, "admin socket", "local")
	for _, id := range []string{"web", "named", "local"} {
		require.NoError(t, s.issue(t, n, id), id)
	}
	// Two siblings: a grant without the DNS names, and one for another path.
	without := issuer("/apps")
	s.revoked(t, wide)
	require.NoError(t, s.issue(t, n, "web"))
	require.ErrorContains(t, s.issue(t, n, "named"), ci+", who wrote entry named, may not issue "+
		"spiffe://eu.example.org/apps/named any more: who may issue it confirms the entry with 'entente entry update "+
		"named --confirm'")
	other := issuer("/other")
	effects, err := s.room.Dependents(s.store.View(), without)
	require.NoError(t, err)
	require.Len(t, effects, 1, "that by the name has stopped before, and the other author's stays")
	require.Equal(t, "spiffe://eu.example.org/apps/web", effects[0].GetSubject())
	s.revoked(t, without)
	require.Equal(t, codes.PermissionDenied, status.Code(s.issue(t, n, "web")))
	s.revoked(t, other)
	require.Equal(t, codes.PermissionDenied, status.Code(s.issue(t, n, "web")))
	require.NoError(t, s.issue(t, n, "local"))
	shown, err := s.entries.GetEntry(administrator(t), &ententev1.GetEntryRequest{Id: "web"})
	require.NoError(t, err)
	require.Contains(t, shown.GetStopped(), "may not issue")
	require.Equal(t, ci, shown.GetWrittenBy())

	_, err = s.entries.UpdateEntry(administrator(t), &ententev1.UpdateEntryRequest{
		Entry: shown, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"spiffe_id"}},
	})
	require.NoError(t, err)
	require.NoError(t, s.issue(t, n, "web"))
	shown, err = s.entries.GetEntry(administrator(t), &ententev1.GetEntryRequest{Id: "web"})
	require.NoError(t, err)
	require.Empty(t, shown.GetStopped())
	require.Equal(t, "admin socket", shown.GetWrittenBy())
}

// TestTokensEndWithTheGrantOfTheirAuthor tests the same for a token of an agent.
func TestTokensEndWithTheGrantOfTheirAuthor(t *testing.T) {
	s := room(t)
	admin := s.granted(t, &ententev1.Grant{Role: grant.Admin, SpiffeId: ci})
	by := access.WithCaller(t.Context(), access.SVIDCaller(spiffeid.RequireFromString(ci)))
	make1 := func(agent string) agenttoken.Token {
		made, err := s.agents.CreateAgentToken(by, &ententev1.CreateAgentTokenRequest{Agent: agent})
		require.NoError(t, err)
		token, err := agenttoken.Parse(made.GetToken())
		require.NoError(t, err)
		return token
	}
	first, second := make1("node-1"), make1("node-2")
	require.NoError(t, s.attestNode(t, newNode(t), &first))
	s.revoked(t, admin)
	require.ErrorContains(t, s.attestNode(t, newNode(t), &second), "the token was made by "+ci+
		", who may not admit agents any more")
}

// TestTokensAreListedAndRevoked lists the open tokens, and revokes one.
func TestTokensAreListedAndRevoked(t *testing.T) {
	s := room(t)
	ctx := administrator(t)
	open, used := s.token(t, "node-2"), s.token(t, "node-1")
	kept := s.token(t, "node-3")
	require.NoError(t, s.attestNode(t, newNode(t), &used))
	list, err := s.agents.ListAgentTokens(ctx, &ententev1.ListAgentTokensRequest{})
	require.NoError(t, err)
	require.Len(t, list.GetAgentTokens(), 2)
	require.Equal(t, "node-2", list.GetAgentTokens()[0].GetAgent())
	require.Equal(t, open.ID, list.GetAgentTokens()[0].GetId())
	_, err = s.agents.RevokeAgentToken(ctx, &ententev1.RevokeAgentTokenRequest{Agent: "node-2"})
	require.NoError(t, err)
	require.ErrorContains(t, s.attestNode(t, newNode(t), &open), "no such token for an agent")
	_, err = s.agents.RevokeAgentToken(ctx, &ententev1.RevokeAgentTokenRequest{Agent: "node-1"})
	require.Equal(t, codes.NotFound, status.Code(err), err)
	require.NoError(t, s.attestNode(t, newNode(t), &kept))
}

// TestAuthorsHaveShares tests that one issuer cannot fill the table of entries, that two leave room for a third one,
// and that an administrator of a member fills it.
func TestAuthorsHaveShares(t *testing.T) {
	s := room(t, func(c *registration.Config) { c.MaxEntries = 8 })
	create := func(ctx context.Context, id string) error {
		_, err := s.entries.CreateEntry(ctx, &ententev1.CreateEntryRequest{Entry: &ententev1.Entry{
			Id: id, Agent: "n", SpiffeId: "spiffe://eu.example.org/" + id, Selectors: []string{"unix:uid:1"},
		}})
		return err
	}
	// Without the guard, a caller that has a share is refused for its grants, after its share was looked at.
	fill := func(name string) int {
		author := "spiffe://eu.example.org/" + name
		ctx := access.WithCaller(t.Context(), access.SVIDCaller(spiffeid.RequireFromString(author)))
		for n := 0; ; n++ {
			if err := create(ctx, "x"); status.Code(raftstore.StatusError(err)) == codes.ResourceExhausted {
				require.ErrorContains(t, err, fmt.Sprintf("%s has written %d entries, and ", author, n))
				return n
			}
			s.written(t, author, fmt.Sprint(name, n))
			require.Eventually(t, func() bool { return s.room.WrittenBy(author) == n+1 }, time.Minute, time.Millisecond)
		}
	}
	require.Equal(t, 4, fill("first"))
	require.Equal(t, 2, fill("second"))
	require.Equal(t, 1, fill("third"))
	require.NoError(t, create(administrator(t), "last"))
	require.Eventually(t, func() bool { return s.room.WrittenBy("admin socket") == 1 }, time.Minute, time.Millisecond)
	require.ErrorContains(t, create(administrator(t), "more"), "the cluster has 8 entries, the most that it can have")
}
