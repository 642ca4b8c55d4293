package registration_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/internal/origin"
	"github.com/ententehq/entente/registration"
	"github.com/ententehq/entente/registration/agenttoken"
	"github.com/ententehq/entente/registration/nodeattest"
	"github.com/ententehq/entente/registration/possession"
)

// exhausted requires a refusal that names when to try again.
func exhausted(t *testing.T, err error, text string, after time.Duration) {
	t.Helper()
	s := status.Convert(err)
	require.Equal(t, codes.ResourceExhausted, s.Code(), err)
	require.ErrorContains(t, err, text)
	require.Len(t, s.Details(), 1)
	info, ok := s.Details()[0].(*errdetails.RetryInfo)
	require.True(t, ok)
	require.Equal(t, after+time.Millisecond, info.GetRetryDelay().AsDuration())
}

// shown is a room with an authority of nodes, whose clock a test sets.
type shown struct {
	*services
	ca    *x509.Certificate
	caKey *ecdsa.PrivateKey
	now   time.Time
	from  origin.Origin
}

func newShown(t *testing.T) *shown {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	s := &shown{caKey: key, now: time.Now(), from: origin.Origin{Host: "192.0.2.1"}}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: s.now.Add(-time.Hour), NotAfter: s.now.Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	s.ca, err = x509.ParseCertificate(der)
	require.NoError(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(s.ca)
	s.services = room(t, func(cfg *registration.Config) {
		cfg.X509PoP = &nodeattest.X509PoP{Roots: pool}
		cfg.Now = func() time.Time { return s.now }
		cfg.Origin = func(context.Context) origin.Origin { return s.from }
	})
	return s
}

// show attests an agent with a certificate of its node.
func (s *shown) show(t *testing.T, n node, name string) error {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, KeyUsage: x509.KeyUsageDigitalSignature,
		NotBefore: s.now.Add(-time.Minute), NotAfter: s.now.Add(time.Minute),
	}, s.ca, key.Public(), s.caKey)
	require.NoError(t, err)
	proof, err := agenttoken.Prove(n.key, []byte(session))
	require.NoError(t, err)
	identity, err := agenttoken.Identity(&n.key.PublicKey)
	require.NoError(t, err)
	signature, err := possession.Prove(possession.OfNode, key, []byte(session), identity[:])
	require.NoError(t, err)
	_, err = s.attest.AttestAgent(t.Context(), &ententev1.AttestAgentRequest{
		Csr: n.csr, Proof: proof,
		X509Pop: &ententev1.X509PoPEvidence{Certificates: [][]byte{der}, Signature: signature},
	})
	return err
}

// TestEvidenceMakesOneAgentAMinute shows the evidence of one node with one key after the other.
func TestEvidenceMakesOneAgentAMinute(t *testing.T) {
	s := newShown(t)
	first, second := newNode(t), newNode(t)
	require.NoError(t, s.show(t, first, "node-1"))
	before := s.store.View().Revision()
	s.now = s.now.Add(20 * time.Second)
	for range 10 {
		exhausted(t, s.show(t, newNode(t), "node-1"), "agent x509pop.node-1 was attested with another key less than "+
			"1m0s ago; its evidence makes one agent in that time: try again after 40", 40*time.Second)
	}
	require.Equal(t, before, s.store.View().Revision(), "nothing was written")
	require.NoError(t, s.show(t, first, "node-1"), "the agent itself attests itself by its key")
	require.NoError(t, s.show(t, newNode(t), "node-2"))
	s.now = s.now.Add(40 * time.Second)
	require.NoError(t, s.show(t, second, "node-1"))
	require.ErrorContains(t, s.attestNode(t, first, nil), "no agent has this key")

	// A member whose clock is far ahead has attested it.
	s.now = s.now.Add(-time.Hour)
	s.from.Host = "192.0.2.2"
	require.NoError(t, s.show(t, first, "node-1"))
}

// TestAttestationsOfOneAddressAreLimited: many keys, with or without evidence, from one address or site.
func TestAttestationsOfOneAddressAreLimited(t *testing.T) {
	s := newShown(t)
	n := newNode(t)
	known := newNode(t)
	require.NoError(t, s.show(t, known, "known"))
	for range 99 {
		require.ErrorContains(t, s.attestNode(t, n, nil), "no agent has this key")
	}
	token := s.token(t, "node-1")
	const full = "192.0.2.1 has attested more than 10 agents a second (and 100 at once) at this member: try again"
	exhausted(t, s.attestNode(t, n, nil), full, time.Second)
	exhausted(t, s.attestNode(t, n, &token), full, time.Second)
	exhausted(t, s.show(t, n, "node-1"), full, time.Second)
	require.NoError(t, s.attestNode(t, known, nil), "a known agent is not counted")
	s.now = s.now.Add(100 * time.Millisecond)
	require.NoError(t, s.attestNode(t, n, &token))

	for i := range 100 {
		s.from = origin.Origin{Host: fmt.Sprintf("2001:db8:0:%x::/64", i), Site: "2001:db8::/48"}
		require.ErrorContains(t, s.attestNode(t, newNode(t), nil), "no agent has this key")
	}
	s.from.Host = "2001:db8:0:ffff::/64"
	exhausted(t, s.attestNode(t, newNode(t), nil), "2001:db8::/48 has attested more than 10 agents", time.Second)
	s.from = origin.Origin{Host: "192.0.2.2"}
	require.ErrorContains(t, s.attestNode(t, newNode(t), nil), "no agent has this key")
}

const evidenceLeft = 59 * time.Second

// TestEvidenceIsLimited shows the evidence of many nodes from many addresses.
func TestEvidenceIsLimited(t *testing.T) {
	s := newShown(t)
	for i := range 200 {
		s.from.Host = fmt.Sprintf("192.0.2.%d", i)
		require.NoError(t, s.show(t, newNode(t), fmt.Sprintf("node-%d", i)))
	}
	exhausted(t, s.show(t, newNode(t), "node-x"), "this member admits 50 agents a second (and 200 at once) by evidence",
		time.Second)
	s.now = s.now.Add(time.Second)
	for range 100 {
		exhausted(t, s.show(t, newNode(t), "node-0"), "agent x509pop.node-0 was attested with another key",
			evidenceLeft)
	}
	s.from.Host = "192.0.2.250"
	require.NoError(t, s.show(t, newNode(t), "node-x"), "what was refused is not counted")
	token := s.token(t, "node-y")
	require.NoError(t, s.attestNode(t, newNode(t), &token), "tokens are not evidence that can be shown again")
}
