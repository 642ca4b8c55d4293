package node

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/node/operations"
)

// TestReadyOnlyWithUsableSVID: a member whose own SVID verifiers would refuse is not ready, and the text names the
// certificate and the extension.
func TestReadyOnlyWithUsableSVID(t *testing.T) {
	td := spiffeid.RequireTrustDomainFromString("eu.example.org")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	now := time.Now()
	sign := func(template, parent *x509.Certificate) *x509.Certificate {
		template.NotBefore, template.NotAfter = now.Add(-time.Hour), now.Add(time.Hour)
		template.BasicConstraintsValid = true
		der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), key)
		require.NoError(t, err)
		cert, err := x509.ParseCertificate(der)
		require.NoError(t, err)
		return cert
	}
	ca := func(n int64, name string, usage x509.KeyUsage) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(n), Subject: pkix.Name{CommonName: name}, IsCA: true, KeyUsage: usage,
		}
	}
	template := ca(1, "root", x509.KeyUsageCertSign)
	root := sign(template, template)
	held := func(usage x509.KeyUsage) *tls.Certificate {
		issuing := sign(ca(2, "Issuing CA", usage), root)
		leaf := sign(&x509.Certificate{
			SerialNumber: big.NewInt(3), KeyUsage: x509.KeyUsageDigitalSignature,
			URIs: []*url.URL{spiffeid.RequireFromString("spiffe://eu.example.org/entente/member/eu-1").URL()},
		}, issuing)
		return &tls.Certificate{Certificate: [][]byte{leaf.Raw, issuing.Raw}}
	}
	bundles := x509bundle.FromX509Authorities(td, []*x509.Certificate{root})
	ready := func(own *tls.Certificate, err error) error {
		return usableSVID(func() (*tls.Certificate, error) { return own, err }, bundles, now)
	}
	require.NoError(t, ready(held(x509.KeyUsageCertSign), nil))
	require.EqualError(t, ready(held(0), nil), "the SVID of this member is refused by those who verify it: the "+
		"X509-SVID does not lead to an authority of its trust domain: spiffe://eu.example.org/entente/member/eu-1: "+
		"certificate \"CN=Issuing CA\" (serial 2): key usage: it is missing, and go-spiffe requires keyCertSign "+
		"below an anchor")
	none := errors.New("this member has no valid SVID of that name yet")
	require.Equal(t, none, ready(nil, none))
}

// A removed member answers so at both conditions of readiness, and waits for probes no longer than its caller does.
func TestReadyShowsTheRemoval(t *testing.T) {
	log := hclog.NewNullLogger()
	m := &member{log: log, operations: operations.New(prometheus.NewRegistry(), log)}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- m.operations.Serve(ctx, listener) }()
	require.NoError(t, m.awaitNotice(t.Context()), "it was not removed")
	m.showRemoval(errors.New("its removal is committed"))
	for _, path := range []string{"/ready", "/ready/write"} {
		answer, err := http.Get("http://" + listener.Addr().String() + path)
		require.NoError(t, err)
		text, err := io.ReadAll(answer.Body)
		require.NoError(t, errors.Join(err, answer.Body.Close()))
		require.Equal(t, http.StatusServiceUnavailable, answer.StatusCode)
		require.Equal(t, "removed: its removal is committed\n", string(text))
	}
	stop()
	require.NoError(t, <-served)
}
