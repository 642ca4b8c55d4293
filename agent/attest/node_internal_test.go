package attest

import (
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/registration/agenttoken"
)

func server(i byte) agenttoken.Server {
	return agenttoken.Server{Address: "10.0.0." + string('0'+i) + ":7440", Identity: [32]byte{i}}
}

func opened(t *testing.T, dir string, s state, token *agenttoken.Token) *Node {
	t.Helper()
	if s.SPIFFEID != "" {
		require.NoError(t, s.save(dir))
	}
	cfg := Config{Dir: dir, Logger: hclog.NewNullLogger()}
	if token != nil {
		text, err := token.Text()
		require.NoError(t, err)
		cfg.Token = text
	}
	n, err := Open(cfg)
	require.NoError(t, err)
	return n
}

// TestRemovedMembersAreNotAskedAgain tests that an agent attests itself to the members that the cluster named last, and
// to those of a token only until that was used or, once the agent was attested, has expired.
func TestRemovedMembersAreNotAskedAgain(t *testing.T) {
	removed, present := server(1), server(2)
	old := agenttoken.New("node-1", "eu.example.org", []agenttoken.Server{removed}, time.Now().Add(time.Hour))
	attested := state{SPIFFEID: "spiffe://eu.example.org/entente/agent/node-1", Servers: []agenttoken.Server{present}}
	require.Equal(t, []agenttoken.Server{removed}, opened(t, t.TempDir(), state{}, &old).servers(), "the first time")

	used := attested
	used.Token = old.ID
	require.Equal(t, []agenttoken.Server{present}, opened(t, t.TempDir(), used, &old).servers(), "a used token")
	expired := agenttoken.New("node-1", "eu.example.org", []agenttoken.Server{removed}, time.Now().Add(-time.Hour))
	require.Equal(t, []agenttoken.Server{present}, opened(t, t.TempDir(), attested, &expired).servers(), "an old token")
	newer := agenttoken.New("node-1", "eu.example.org", []agenttoken.Server{server(3)}, time.Now().Add(time.Hour))
	require.Equal(t, []agenttoken.Server{server(3)}, opened(t, t.TempDir(), attested, &newer).servers(),
		"a new token, after an eviction, is newer than what is stored")

	// The cluster names its members again while the agent runs, and after a restart they are known.
	dir := t.TempDir()
	n := opened(t, dir, attested, nil)
	require.NoError(t, n.SetServers([]*ententev1.AgentServer{
		{Address: server(3).Address, Identity: append([]byte{3}, make([]byte, 31)...)}, {Address: "without a key"},
	}))
	require.Equal(t, []agenttoken.Server{server(3)}, n.servers())
	require.NoError(t, n.SetServers(nil))
	require.Equal(t, []agenttoken.Server{server(3)}, opened(t, dir, state{}, nil).servers())
	require.Equal(t, []string{server(3).Address}, n.Addresses())
}
