package bundle_test

import (
	"crypto/x509"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/bundle"
)

// Whatever certificates are presented, what is taken for an X509-SVID is one, and every refusal has its name. The bundle
// holds what was presented last, so that a certificate that is an anchor itself is tried too.
func FuzzVerifySVID(f *testing.F) {
	ca := newAuthority(f, home)
	between := ca.intermediate(f, caTemplate(home))
	f.Add(ca.svid(f, "spiffe://eu.example.org/workload").Leaf.Raw, []byte{}, ca.cert.Raw)
	f.Add(between.svid(f, "spiffe://eu.example.org/workload").Leaf.Raw, between.cert.Raw, ca.cert.Raw)
	f.Add(ca.cert.Raw, ca.cert.Raw, ca.cert.Raw)
	now := time.Now()
	f.Fuzz(func(t *testing.T, leaf, above, anchor []byte) {
		var chain []*x509.Certificate
		for _, der := range [][]byte{leaf, above} {
			if c, err := x509.ParseCertificate(der); err == nil {
				chain = append(chain, c)
			}
		}
		trusted := x509bundle.New(home)
		if c, err := x509.ParseCertificate(anchor); err == nil {
			trusted.AddX509Authority(c)
		}
		svid, err := bundle.VerifySVID(chain, trusted, now)
		if err != nil {
			require.Zero(t, svid)
			require.NotEqual(t, "other", bundle.Reason(err), "%v", err)
			return
		}
		require.Len(t, chain[0].URIs, 1)
		require.Equal(t, chain[0].URIs[0].String(), svid.ID.String())
		require.NotEmpty(t, svid.ID.Path())
		require.Equal(t, home, svid.ID.TrustDomain())
		require.False(t, chain[0].IsCA)
		require.False(t, chain[0].Equal(trusted.X509Authorities()[0]))
		require.False(t, svid.Until.After(chain[0].NotAfter) || svid.Until.Before(now))
	})
}
