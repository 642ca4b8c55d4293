package authority

import (
	"bytes"
	"context"
	"crypto/x509"
	"testing"
	"time"

	"github.com/ententehq/entente/authority/keys"
	"github.com/ententehq/entente/authority/plan"
	"github.com/ententehq/entente/authority/svid"
	"github.com/ententehq/entente/authority/upstream"
	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
)

// sloppy is an upstream that signs what no rule for SVIDs forbids and RFC 5280 does: a CA certificate without an
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

// TestFindings: what zlint finds about a CA certificate is counted and logged, and keeps nobody from signing.
func TestFindings(t *testing.T) {
	var log bytes.Buffer
	_, c := newOne(t, func(c *Config) {
		c.Upstream, c.Logger = sloppy{}, hclog.New(&hclog.LoggerOptions{Output: &log})
	})
	_, err := c.SVIDService().IssueX509SVID(caller, request(t, workload(1)))
	require.NoError(t, err)
	require.Equal(t, 1.0, testutil.ToFloat64(c.second.findings.WithLabelValues("ca", "e_ext_authority_key_identifier_no_key_identifier")))
	require.Equal(t, 1.0, testutil.ToFloat64(c.second.looked.WithLabelValues("ca", "finding")))
	require.Equal(t, 1.0, testutil.ToFloat64(c.second.looked.WithLabelValues("ca", "clean")), "the anchor")
	c.stop() // so that nobody writes the log any more
	require.Contains(t, log.String(), "zlint has findings about a certificate that was issued; please look into it: certificate=ca")
	require.Contains(t, log.String(), "e_ext_authority_key_identifier_no_key_identifier")
}

// TestSampledLeaves: one leaf in so many is looked at, by a goroutine that no signature waits for.
func TestSampledLeaves(t *testing.T) {
	start := time.Now()
	registry := prometheus.NewRegistry()
	s, err := newSecond(3, hclog.NewNullLogger(), registry)
	require.NoError(t, err)
	key, err := keys.Generate()
	require.NoError(t, err)
	template, err := svid.CATemplate(home, key.Public(), "root", start, start.Add(plan.DefaultCATTL), 0)
	require.NoError(t, err)
	ca, err := svid.SignCertificate(template, template, key.Public(), key, svid.LintCA(home))
	require.NoError(t, err)
	leaf := issueLeaf(t, spiffeid.RequireFromString(workload(1)), key, ca, start)
	for range 3 * (lintBacklog + 2) {
		s.leaf(leaf)
	}
	require.Len(t, s.backlog, lintBacklog)
	require.Equal(t, 2.0, testutil.ToFloat64(s.looked.WithLabelValues("leaf", "skipped")), "it did not wait")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- s.run(ctx) }()
	require.Eventually(t, func() bool { return testutil.ToFloat64(s.looked.WithLabelValues("leaf", "clean")) == lintBacklog }, testPatience, 1e6)
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)

	off, err := newSecond(-1, hclog.NewNullLogger(), nil)
	require.NoError(t, err)
	off.leaf(leaf)
	require.Empty(t, off.backlog)
	found, err := Findings(append(bytes.Clone(leaf), 0))
	require.NoError(t, err)
	require.Len(t, found, 1)
	require.Contains(t, found[0].String(), "unparsable: ")
}

// TestOwnBreachNeverSigns: unlike zlint's findings, a breach of a rule for SVIDs ends in an error, an audit line that
// says so, and no certificate.
func TestOwnBreachNeverSigns(t *testing.T) {
	_, c := newOne(t, nil)
	d := c.signing.Load().domains[home]
	r, err := svid.ParseX509Request(request(t, workload(1)))
	require.NoError(t, err)
	r.DNSNames = []string{"*.example.org"} // past the door, as only a defect could bring it
	answer, err := c.signX509(d.signers[plan.X509], d, r, plan.DefaultX509SVIDTTL, "test")
	require.ErrorIs(t, err, svid.ErrLint)
	require.Nil(t, answer)
	lines := c.audit.about("sign x509-svid")
	require.Equal(t, "failed", lines[len(lines)-1].Result)
	require.Contains(t, lines[len(lines)-1].Detail, svid.ErrLint.Error())
}
