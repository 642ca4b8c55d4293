package svid_test

import (
	"crypto/x509"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/bundle/internal/bundletest"
	"github.com/ententehq/entente/bundle/svid"
)

// FuzzVerifySVID: every accepted certificate is a valid X509-SVID, and every refusal has a name. The bundle holds the
// last certificate of the chain, so the fuzzer also tries certificates that are anchors themselves.
func FuzzVerifySVID(f *testing.F) {
	ca := bundletest.NewAuthority(f, bundletest.Home)
	between := ca.Intermediate(f, bundletest.CATemplate(bundletest.Home))
	f.Add(ca.SVID(f, "spiffe://eu.example.org/workload").Leaf.Raw, []byte{}, ca.Cert.Raw)
	f.Add(between.SVID(f, "spiffe://eu.example.org/workload").Leaf.Raw, between.Cert.Raw, ca.Cert.Raw)
	f.Add(ca.Cert.Raw, ca.Cert.Raw, ca.Cert.Raw)
	now := time.Now()
	f.Fuzz(func(t *testing.T, leaf, above, anchor []byte) {
		var chain []*x509.Certificate
		for _, der := range [][]byte{leaf, above} {
			if c, err := x509.ParseCertificate(der); err == nil {
				chain = append(chain, c)
			}
		}
		trusted := x509bundle.New(bundletest.Home)
		if c, err := x509.ParseCertificate(anchor); err == nil {
			trusted.AddX509Authority(c)
		}
		verified, err := svid.Verify(chain, trusted, now)
		if err != nil {
			require.Zero(t, verified)
			require.NotEqual(t, "other", bundle.Reason(err), "%v", err)
			return
		}
		require.Len(t, chain[0].URIs, 1)
		require.Equal(t, chain[0].URIs[0].String(), verified.ID.String())
		require.NotEmpty(t, verified.ID.Path())
		require.Equal(t, bundletest.Home, verified.ID.TrustDomain())
		require.False(t, chain[0].IsCA)
		require.False(t, chain[0].Equal(trusted.X509Authorities()[0]))
		require.False(t, verified.Until.After(chain[0].NotAfter) || verified.Until.Before(now))
	})
}
