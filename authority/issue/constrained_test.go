package issue

import (
	"crypto/rand"
	"crypto/x509"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/authority/keys"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/svid"
	"github.com/ententehq/entente/authority/upstream"
)

// belowCompany replaces the X.509 authority by one below a root that edit changes, and returns the error of its signer.
func (h *harness) belowCompany(t *testing.T, edit func(root *x509.Certificate)) error {
	t.Helper()
	rootKey, err := keys.Generate()
	require.NoError(t, err)
	template, err := svid.CATemplate(home, rootKey.Public(), "company root", h.now, h.now.Add(2*plan.DefaultCATTL), 1)
	require.NoError(t, err)
	edit(template)
	sign := func(template, parent *x509.Certificate, key any) *x509.Certificate {
		der, err := x509.CreateCertificate(rand.Reader, template, parent, key, rootKey)
		require.NoError(t, err)
		cert, err := x509.ParseCertificate(der)
		require.NoError(t, err)
		return cert
	}
	root := sign(template, template, rootKey.Public())
	row := &statev1.Authority{
		Id: "below", TrustDomain: home.Name(), Kind: statev1.AuthorityKind(plan.X509),
		NotAfter: timestamppb.New(h.now.Add(plan.DefaultCATTL)), Anchors: [][]byte{root.Raw},
	}
	key, err := h.config.Keys.Create(t.Context(), row.GetId())
	require.NoError(t, err)
	template, err = svid.CATemplate(home, key.Public(), "authority", h.now, h.now.Add(plan.DefaultCATTL), 0)
	require.NoError(t, err)
	row.Chain = [][]byte{sign(template, root, key.Public()).Raw}
	h.domain.signers[plan.X509], err = newSigner(h.config.Keys, home, row)
	return err
}

// TestConstrainedNames: the names of a request that a certificate above constrains are refused before anything is
// signed, with the certificate and the extension named. Others are signed.
func TestConstrainedNames(t *testing.T) {
	for _, test := range []struct {
		name string
		edit func(*x509.Certificate)
		dns  []string
		want string
	}{
		{"no constraint", func(*x509.Certificate) {}, []string{"web.example.com"}, ""},
		{"permitted", func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"example.com"} },
			[]string{"web.example.com"}, ""},
		{"no name", func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"example.com"} }, nil, ""},
		{"not permitted", func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"example.com"} },
			[]string{"web.example.com", "db.corp.example"},
			`name constraints: the DNS name "db.corp.example" is in no permitted subtree`},
		{"excluded", func(c *x509.Certificate) { c.ExcludedDNSDomains = []string{"corp.example"} },
			[]string{"db.corp.example"}, `name constraints: the DNS name "db.corp.example" is in an excluded subtree`},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newHarness(t)
			require.NoError(t, h.belowCompany(t, test.edit))
			r := workloadRequest(t)
			r.DNSNames = test.dns
			response, err := h.signX509(h.domain, r, "test")
			if test.want == "" {
				require.NoError(t, err)
				require.NotEmpty(t, response.GetCertificates())
				return
			}
			require.Nil(t, response)
			require.Equal(t, codes.InvalidArgument, status.Code(err))
			require.Contains(t, status.Convert(err).Message(),
				`verifiers would refuse spiffe://eu.example.org/web/1: certificate "SERIALNUMBER=`)
			require.Contains(t, status.Convert(err).Message(),
				test.want+"; request other names, or have the upstream's certificate replaced")
			require.Equal(t, "failed", h.audit.last().Result)
		})
	}
}

// TestUnusableAuthoritySignsNothing: an authority of an earlier build, below a certificate that verifiers refuse, is no
// signer.
func TestUnusableAuthoritySignsNothing(t *testing.T) {
	h := newHarness(t)
	err := h.belowCompany(t, func(c *x509.Certificate) {
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	})
	require.ErrorIs(t, err, upstream.ErrUnusable)
	require.ErrorContains(t, err, "extended key usage: it is present and does not have both serverAuth and clientAuth")
}
