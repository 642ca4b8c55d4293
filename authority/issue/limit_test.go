package issue

import (
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ententehq/entente/access"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/authority/keys"
	"github.com/ententehq/entente/authority/plan"
)

// TestAgentsAreLimited: the SVIDs of an agent itself count towards its rate, with those of its entries, and those of
// another agent do not.
func TestAgentsAreLimited(t *testing.T) {
	h := newHarness(t)
	var err error
	h.limiter, err = newLimiter(1, 2, func() time.Time { return h.now }, nil)
	require.NoError(t, err)
	h.state.Store(&State{Domains: map[spiffeid.TrustDomain]*Domain{home: h.domain}})
	key, err := keys.Generate()
	require.NoError(t, err)
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	require.NoError(t, err)
	own := func(name string) error {
		id := spiffeid.RequireFromPath(home, "/entente/agent/"+name)
		_, err := h.IssueAgentX509(t.Context(), id, csr, "agent")
		return err
	}
	entry := func(name string) error {
		ctx := access.WithCaller(t.Context(), access.SVIDCaller(spiffeid.RequireFromPath(home, "/entente/agent/"+name)))
		_, err := h.SVIDService().IssueJWTSVID(ctx, &ententev1.IssueJWTSVIDRequest{
			SpiffeId: workload, Audience: []string{"a"},
		})
		return err
	}
	require.NoError(t, own("node-1"))
	require.NoError(t, entry("node-1"))
	require.ErrorContains(t, own("node-1"),
		"spiffe://eu.example.org/entente/agent/node-1 requested more than 1 SVIDs a second")
	require.Equal(t, codes.ResourceExhausted, status.Code(entry("node-1")))
	require.NoError(t, own("node-2"))
	h.now = h.now.Add(time.Second)
	require.NoError(t, own("node-1"))
}

// TestLimiterIsBounded: the table of callers is bounded, and the least recent caller is dropped first.
func TestLimiterIsBounded(t *testing.T) {
	now := time.Now()
	l, err := newLimiter(1, 1, func() time.Time { return now }, nil)
	require.NoError(t, err)
	for i := range 2 * maxLimitedCallers {
		l.of(fmt.Sprint(i))
	}
	require.Equal(t, maxLimitedCallers, l.callers.Len())
	require.False(t, l.callers.Contains("0"))
	require.True(t, l.callers.Contains(fmt.Sprint(2*maxLimitedCallers-1)))
	unlimited, err := newLimiter(-1, 1, time.Now, nil)
	require.NoError(t, err)
	for range 100 {
		require.NoError(t, unlimited.admit(access.Caller{}, plan.X509))
	}
}

// A changed limit counts at once, for callers that are known too, and in the text of the refusal.
func TestLimiterChanges(t *testing.T) {
	now := time.Now()
	l, err := newLimiter(1, 1, func() time.Time { return now }, nil)
	require.NoError(t, err)
	require.NoError(t, l.admit(access.Caller{}, plan.X509))
	require.ErrorContains(t, l.admit(access.Caller{}, plan.X509), "more than 1 SVIDs a second (and 1 at once)")
	l.set(5, 2)
	require.NoError(t, l.admit(access.Caller{}, plan.X509))
	require.NoError(t, l.admit(access.Caller{}, plan.X509))
	require.ErrorContains(t, l.admit(access.Caller{}, plan.X509), "more than 5 SVIDs a second (and 2 at once)")
	l.set(-1, 1)
	for range 100 {
		require.NoError(t, l.admit(access.Caller{}, plan.X509))
	}
}
