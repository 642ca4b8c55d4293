package authority

import (
	"bytes"
	"context"
	"crypto/x509"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/authority/keys"
	"github.com/ententehq/entente/authority/svid"
	"github.com/ententehq/entente/authority/upstream"
)

// sloppy is an upstream that signs what RFC 5280 forbids and no rule for SVIDs does: a CA certificate without an
// authority key identifier.
type sloppy struct{ upstream.Upstream }

func (s sloppy) SignCA(_ context.Context, r upstream.Request) (*upstream.Signed, error) {
	key, err := keys.Generate()
	if err != nil {
		return nil, err
	}
	top, err := svid.CATemplate(r.TrustDomain, key.Public(), "sloppy", r.Now, r.Now.Add(4*r.TTL), 1)
	if err != nil {
		return nil, err
	}
	root, err := svid.SignCertificate(top, top, key.Public(), key, svid.LintCA(r.TrustDomain))
	if err != nil {
		return nil, err
	}
	template, err := svid.CATemplate(r.TrustDomain, r.CSR.PublicKey, "sloppy", r.Now, r.Now.Add(r.TTL), 0)
	if err != nil {
		return nil, err
	}
	parent := *root
	parent.SubjectKeyId = nil
	ca, err := svid.SignCertificate(template, &parent, r.CSR.PublicKey, key, svid.LintCA(r.TrustDomain))
	if err != nil {
		return nil, err
	}
	return &upstream.Signed{Chain: []*x509.Certificate{ca}, Anchors: []*x509.Certificate{root}}, nil
}

func (sloppy) Prune(func(*x509.Certificate) bool) error { return nil }

// TestFindings: a finding of zlint about a CA certificate is counted and logged, and the member still signs.
func TestFindings(t *testing.T) {
	var log bytes.Buffer
	_, c := newSingle(t, func(c *Config) {
		c.Upstream, c.Logger = sloppy{}, hclog.New(&hclog.LoggerOptions{Output: &log})
	})
	_, err := c.SVIDService().IssueX509SVID(caller, x509Request(t, workload(1)))
	require.NoError(t, err)
	const checked = "entente_authority_zlint_certificates_total"
	require.Equal(t, 1.0, c.metric(checked, "ca", "finding"))
	require.Equal(t, 1.0, c.metric(checked, "ca", "clean"), "the anchor")
	const finding = "e_ext_authority_key_identifier_no_key_identifier"
	require.Equal(t, 1.0, c.metric("entente_authority_zlint_findings_total", "ca", finding))
	c.stop() // so that the log is no longer written
	require.Contains(t, log.String(),
		"zlint has findings for an issued certificate; please report them: certificate=ca")
	require.Contains(t, log.String(), "e_ext_authority_key_identifier_no_key_identifier")
}
