package issue

import (
	"crypto/x509"
	"math/big"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/authority/svid"
)

// TestRenewalOf: an SVID is renewed in the middle of its remaining life, even if that is shorter than the time by which
// it is backdated.
func TestRenewalOf(t *testing.T) {
	now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	for _, ttl := range []time.Duration{5 * time.Second, 10 * time.Second, time.Hour} {
		for serial := range int64(100) {
			at := renewalOf(&x509.Certificate{
				SerialNumber: big.NewInt(serial), NotBefore: now.Add(-svid.Backdate), NotAfter: now.Add(ttl),
			}, now)
			require.False(t, at.Before(now.Add(ttl*4/10)), "%v: %v", ttl, at)
			require.False(t, at.After(now.Add(ttl/2)), "%v: %v", ttl, at)
		}
	}
}
