package issue

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/svid"
)

// TestOwnBreachNeverSigns: unlike a finding of zlint, a breach of a rule for SVIDs ends in an error, a line in the
// audit log that gives the reason, and no certificate.
func TestOwnBreachNeverSigns(t *testing.T) {
	h := newHarness(t)
	r := workloadRequest(t)
	r.DNSNames = []string{"*.example.org"} // behind the checks, where only a defect could put it
	response, err := h.signX509(h.domain, r, "test")
	require.ErrorIs(t, err, svid.ErrLint)
	require.Nil(t, response)
	require.Equal(t, "sign x509-svid", h.audit.last().Action)
	require.Equal(t, "failed", h.audit.last().Result)
	require.Contains(t, h.audit.last().Detail, svid.ErrLint.Error())
}

// TestSVIDsEndWithTheirAuthority: when every renewal has failed, lifetimes shrink, and no SVID outlives what signed it.
func TestSVIDsEndWithTheirAuthority(t *testing.T) {
	h := newHarness(t)
	start, r := h.now, workloadRequest(t)
	h.now = start.Add(plan.DefaultCATTL - 20*time.Minute)
	signed, err := h.signX509(h.domain, r, "test")
	require.NoError(t, err)
	require.Equal(t, 20*time.Minute, signed.GetExpireTime().AsTime().Sub(h.now))
	h.now = start.Add(plan.DefaultCATTL - 2*time.Minute)
	token, err := h.signJWT(h.domain, svid.JWTRequest{ID: r.ID, Audience: []string{"a"}}, "test")
	require.NoError(t, err)
	require.LessOrEqual(t, token.GetExpireTime().AsTime().Sub(h.now), 2*time.Minute)
}
