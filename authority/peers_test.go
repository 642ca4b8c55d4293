package authority

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/authority/plan"
)

// fakePeers returns the acknowledgements that a test sets.
type fakePeers struct {
	mu    sync.Mutex
	peers []plan.PeerAcknowledgement
}

func (p *fakePeers) Acknowledged(context.Context, string) ([]plan.PeerAcknowledgement, bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.peers, true, nil
}

func (p *fakePeers) set(peers ...plan.PeerAcknowledgement) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.peers = peers
}

// TestActivationWaitsForAPeer: a rotation waits for a peer that has not acknowledged it, reports that, and continues
// when the peer has.
func TestActivationWaitsForAPeer(t *testing.T) {
	peers := &fakePeers{}
	peers.set(plan.PeerAcknowledgement{Peer: "us.test", Connected: true})
	f, c := newSingle(t, func(config *Config) { config.Acknowledgements = peers })
	_, err := c.AuthorityService().
		RotateAuthorities(t.Context(), &ententev1.RotateAuthoritiesRequest{TrustDomain: home.Name()})
	require.NoError(t, err)
	f.settle()
	f.advance(plan.HintsBeforeUse*plan.DefaultRefreshHint + time.Minute)
	sequence := uint64(0)
	for _, a := range f.list(home) {
		if a.GetState() == ententev1.AuthorityState_AUTHORITY_STATE_PREPARED {
			require.Contains(t, a.GetWaitsFor(), "is not acknowledged, after 16m0s, by us.test.")
			require.Len(t, a.GetUnacknowledged(), 1)
			require.Equal(t, "us.test", a.GetUnacknowledged()[0].GetHomeTrustDomain())
			sequence++
		}
	}
	require.NotZero(t, sequence, "it waits: %v", f.list(home))
	published, ok := f.bundle(home).Sequence()
	require.True(t, ok)
	peers.set(plan.PeerAcknowledgement{Peer: "us.test", Sequence: published, Connected: true})
	f.advance(time.Second)
	for _, a := range f.list(home) {
		require.NotEqual(t, ententev1.AuthorityState_AUTHORITY_STATE_PREPARED, a.GetState(), "%v", a)
	}
}
