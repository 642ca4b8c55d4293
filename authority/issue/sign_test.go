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

// TestWithoutAKnownClockNothingIsSigned: a member signs within its grace after a contact, and not if there is none by
// which its clock is right, or if its clock is not plausible.
func TestWithoutAKnownClockNothingIsSigned(t *testing.T) {
	h := newHarness(t)
	at := func(ago time.Duration) func() time.Time { return func() time.Time { return h.now.Add(-ago) } }
	for refusal, c := range map[string]contact{
		"": {last: at(plan.DefaultSigningGrace)},
		"this member's last contact to the leader was 1h0m1s ago, and it signs for 1h0m0s without": {
			last: at(plan.DefaultSigningGrace + time.Second),
		},
		"this member has had no contact to the leader since it started, and has recorded none from before by which " +
			"its clock is right": {last: func() time.Time { return time.Time{} }},
		"this member's clock is not known to be that of the others": {last: at(0), suspect: true},
	} {
		h.config.Contact = c
		if err := h.CanSign(); refusal != "" {
			require.EqualError(t, err, refusal)
		} else {
			require.NoError(t, err)
		}
	}
}
