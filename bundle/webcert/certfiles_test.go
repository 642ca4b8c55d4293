package webcert_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/bundle/internal/bundletest"
	"github.com/ententehq/entente/bundle/webcert"
	"github.com/ententehq/entente/internal/clocktest"
)

func TestCertificateFilesFollowTheirFiles(t *testing.T) {
	dir := t.TempDir()
	ca := bundletest.NewAuthority(t, bundletest.Home)
	certFile, keyFile, _ := bundletest.WritePair(t, dir, ca)
	var log bundletest.LockedBuffer
	registry := prometheus.NewRegistry()
	files, err := webcert.NewCertificateFiles(webcert.CertificateFilesConfig{
		CertFile: certFile, KeyFile: keyFile, Registerer: registry,
		Logger: hclog.New(&hclog.LoggerOptions{Output: &log}),
	})
	require.NoError(t, err)
	clocktest.Run(t, func(t *testing.T) {
		h, _ := bundletest.NewHandler(t)
		s, err := endpoint.NewServer(
			endpoint.ServerConfig{Listener: bundletest.NewSilentListener(), Handler: h, Web: files},
		)
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		presented := func() []byte { return certificate(t, files).Certificate[0] }
		poll := func() {
			select {
			case <-time.After(11 * time.Second):
			case <-ctx.Done():
			}
			synctest.Wait()
		}

		before := presented()
		poll()
		require.Equal(t, before, presented())
		require.Empty(t, log.String())

		require.NoError(t, os.WriteFile(certFile, []byte("rubbish"), 0o600))
		poll()
		poll()
		require.Equal(t, before, presented(), "a broken pair keeps the old one")
		require.Equal(t, 1, strings.Count(log.String(), "bundle endpoint keeps its certificate"), "and logs it once")
		require.Contains(t, log.String(), "tls: failed to find any PEM data in certificate input")

		require.NoError(t, os.Remove(keyFile))
		poll()
		require.Equal(t, before, presented())

		bundletest.WritePair(t, dir, ca)
		poll()
		require.NotEqual(t, before, presented())
		require.Contains(t, log.String(), "bundle endpoint has a new certificate")

		before = presented()
		_, err = files.Prepare(filepath.Join(dir, "other.pem"), keyFile)
		require.ErrorContains(t, err, "read cert_file: open "+filepath.Join(dir, "other.pem"))
		other := t.TempDir()
		otherCert, otherKey, _ := bundletest.WritePair(t, other, ca)
		_, err = files.Prepare(otherCert, keyFile)
		require.ErrorContains(t, err, "private key does not match public key")
		take, err := files.Prepare(otherCert, otherKey)
		require.NoError(t, err)
		require.Equal(t, before, presented(), "nothing is presented before take")
		take()
		require.NotEqual(t, before, presented())
		require.NoError(t, os.Remove(certFile))
		before = presented()
		poll()
		require.Equal(t, before, presented(), "the other files are followed")
		cancel()
		require.NoError(t, <-done)
	})
	require.NoError(t, testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP entente_bundle_endpoint_certificate_reloads_total Attempts to take a changed certificate file over, by result.
# TYPE entente_bundle_endpoint_certificate_reloads_total counter
entente_bundle_endpoint_certificate_reloads_total{result="failed"} 2
entente_bundle_endpoint_certificate_reloads_total{result="ok"} 1
`), "entente_bundle_endpoint_certificate_reloads_total"))
}

func TestCertificateFilesRefusals(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile, _ := bundletest.WritePair(t, dir, bundletest.NewAuthority(t, bundletest.Home))
	other := filepath.Join(dir, "other.pem")
	_, err := webcert.NewCertificateFiles(webcert.CertificateFilesConfig{CertFile: certFile, KeyFile: other})
	require.EqualError(t, err, "read key_file: open "+other+": no such file or directory")
	key, err := x509.MarshalPKCS8PrivateKey(bundletest.NewKey(t))
	require.NoError(t, err)
	bundletest.WritePEM(t, other, "PRIVATE KEY", key)
	_, err = webcert.NewCertificateFiles(webcert.CertificateFilesConfig{CertFile: certFile, KeyFile: other})
	require.EqualError(
		t,
		err,
		"cert_file "+certFile+" with key_file "+other+": tls: private key does not match public key",
	)
	_, err = webcert.NewCertificateFiles(webcert.CertificateFilesConfig{CertFile: certFile, KeyFile: keyFile})
	require.NoError(t, err)
}

// certificate is the one that the next handshake gets.
func certificate(t *testing.T, files *webcert.CertificateFiles) *tls.Certificate {
	t.Helper()
	cert, err := files.Certificate(t.Context(), "")
	require.NoError(t, err)
	return cert
}
