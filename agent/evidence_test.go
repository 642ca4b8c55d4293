package agent_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/agent"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/client"
	"github.com/ententehq/entente/node/config"
	"github.com/ententehq/entente/node/nodetest"
	"github.com/ententehq/entente/registration/nodeattest"
)

// configuredCluster is a real member with a configuration, its administrator, and a file with its bundle.
func configuredCluster(t *testing.T, adjust func(*config.Config)) (*nodetest.Member, *client.Client, string) {
	t.Helper()
	m, err := nodetest.StartIn(spiffeid.RequireTrustDomainFromString(home), adjust)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close()) })
	c, err := client.New(t.Context(), client.WithAdminSocket(m.Socket))
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	b, err := c.Bundles().GetBundle(context1(t), &ententev1.GetBundleRequest{})
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "bundle.json")
	require.NoError(t, os.WriteFile(file, b.GetDocument(), 0o600))
	return m, c, file
}

func writePEM(t *testing.T, path, kind string, der []byte) string {
	t.Helper()
	require.NoError(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
	return path
}

// nodeCertificates returns the files of an authority, and what makes the certificates of nodes.
func nodeCertificates(t *testing.T) (ca string, issue func(name string) *agent.X509PoP) {
	t.Helper()
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "nodes"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, root, root, key.Public(), key)
	require.NoError(t, err)
	return writePEM(t, filepath.Join(dir, "ca.pem"), "CERTIFICATE", der), func(name string) *agent.X509PoP {
		own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		require.NoError(t, err)
		der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
			SerialNumber: big.NewInt(2), DNSNames: []string{name}, KeyUsage: x509.KeyUsageDigitalSignature,
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		}, root, own.Public(), key)
		require.NoError(t, err)
		pkcs8, err := x509.MarshalPKCS8PrivateKey(own)
		require.NoError(t, err)
		folder := t.TempDir()
		return &agent.X509PoP{
			CertFile: writePEM(t, filepath.Join(folder, "node.pem"), "CERTIFICATE", der),
			KeyFile:  writePEM(t, filepath.Join(folder, "node.key"), "PRIVATE KEY", pkcs8),
		}
	}
}

// TestX509PoP attests agents by the certificates of their nodes, to members that a bundle verifies.
func TestX509PoP(t *testing.T) {
	ca, issue := nodeCertificates(t)
	m, c, bundle := configuredCluster(t, func(cfg *config.Config) { cfg.Agents.X509PoPRoots = ca })
	ctx := context1(t)
	pinned := func(shown *agent.X509PoP) *running {
		r := configured(t, "")
		r.cfg.X509PoP, r.cfg.TrustDomain, r.cfg.TrustBundle = shown, home, bundle
		r.cfg.Addresses = []string{m.Address}
		return r
	}
	certificate := issue("node-1.example.org")
	r := pinned(certificate)
	r.start(t)
	const name = "x509pop.node-1.example.org"
	shown, err := c.Agents().GetAgent(ctx, &ententev1.GetAgentRequest{Name: name})
	require.NoError(t, err)
	require.Equal(t, "x509pop", shown.GetAttestation())
	require.Contains(t, shown.GetSelectors(), "agent:attestation:x509pop")
	require.Contains(t, shown.GetSelectors(), "x509pop:serialnumber:02")

	// It attests itself by its key after a restart, also without the certificate, and its node is admitted again when
	// the key is lost: the agent of before is refused from then on. That waits for a minute, unless it is evicted.
	r.end(t)
	r.cfg.X509PoP = nil
	r.start(t)
	_, err = c.Agents().EvictAgent(ctx, &ententev1.EvictAgentRequest{Name: name})
	require.NoError(t, err)
	again := pinned(certificate)
	again.start(t)
	r.refused(t)
	r.end(t)

	// A ban is of the node, whatever shows it.
	_, err = c.Agents().BanAgent(ctx, &ententev1.BanAgentRequest{Name: name})
	require.NoError(t, err)
	again.refused(t)
	again.end(t)
	banned := pinned(issue("node-1.example.org"))
	require.ErrorContains(t, agent.Run(ctx, banned.cfg, agent.Options{LogOutput: io.Discard}), "is banned")

	_, other := nodeCertificates(t)
	stranger := pinned(other("node-2"))
	require.ErrorContains(t, agent.Run(ctx, stranger.cfg, agent.Options{LogOutput: io.Discard}),
		"does not verify by ca_file of this member")
	unpinned := configured(t, "")
	unpinned.cfg.X509PoP, unpinned.cfg.Addresses = issue("node-3"), []string{m.Address}
	require.ErrorContains(t, agent.Run(ctx, unpinned.cfg, agent.Options{LogOutput: io.Discard}),
		"knows no member to show its node to")
}

// TestEvidenceIsForTheOwnCluster has an agent meet a cluster that its bundle does not verify: nothing is sent to it.
func TestEvidenceIsForTheOwnCluster(t *testing.T) {
	ca, issue := nodeCertificates(t)
	m, c, _ := configuredCluster(t, func(cfg *config.Config) { cfg.Agents.X509PoPRoots = ca })
	foreign, err := nodetest.StartIn(spiffeid.RequireTrustDomainFromString("us.example.org"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, foreign.Close()) })
	there, err := client.New(t.Context(), client.WithAdminSocket(foreign.Socket))
	require.NoError(t, err)
	t.Cleanup(func() { _ = there.Close() })
	b, err := there.Bundles().GetBundle(context1(t), &ententev1.GetBundleRequest{})
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "bundle.json")
	require.NoError(t, os.WriteFile(file, b.GetDocument(), 0o600))
	r := configured(t, "")
	r.cfg.X509PoP, r.cfg.TrustDomain, r.cfg.TrustBundle = issue("node-1"), "us.example.org", file
	r.cfg.Addresses = []string{m.Address}
	r.log = &syncBuffer{}
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { ended <- agent.Run(ctx, r.cfg, agent.Options{LogOutput: r.log}) }()
	eventually(t, "the member is refused", func() bool {
		return strings.Contains(r.log.String(), "verify the member by a bundle; no evidence was sent to it")
	})
	cancel()
	require.NoError(t, <-ended)
	list, err := c.Agents().ListAgents(context1(t), &ententev1.ListAgentsRequest{})
	require.NoError(t, err)
	require.Empty(t, list.GetAgents())
}

// serviceAccountToken returns a token as the kubelet projects it.
func serviceAccountToken(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, nil)
	require.NoError(t, err)
	token, err := jwt.Signed(signer).Claims(jwt.Claims{
		Subject: "system:serviceaccount:entente:agent", Audience: jwt.Audience{"entente"},
		Expiry: jwt.NewNumericDate(time.Now().Add(time.Hour)),
	}).Serialize()
	require.NoError(t, err)
	return token
}

// TestKubernetesToken attests an agent by a projected token, which an HTTP server reviews in the place of the API
// server of Kubernetes.
func TestKubernetesToken(t *testing.T) {
	api := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, `{"status":{"authenticated":%t,"audiences":["entente"],"user":{
			"username":"system:serviceaccount:entente:agent","extra":{
			"authentication.kubernetes.io/pod-uid":["00000000-0000-4000-8000-000000000000"],
			"authentication.kubernetes.io/node-uid":["6f1c0b52-0a3e-4d39-9d7c-0c8f5f3c1a11"]}}}}`,
			r.Header.Get("Authorization") == "Bearer own")
	}))
	t.Cleanup(api.Close)
	dir := t.TempDir()
	own, projected := filepath.Join(dir, "own"), filepath.Join(dir, "projected")
	require.NoError(t, os.WriteFile(own, []byte("own\n"), 0o600))
	require.NoError(t, os.WriteFile(projected, []byte(serviceAccountToken(t)+"\n"), 0o600))
	ca := writePEM(t, filepath.Join(dir, "ca.pem"), "CERTIFICATE", api.Certificate().Raw)
	m, c, bundle := configuredCluster(t, func(cfg *config.Config) {
		cfg.Agents.Kubernetes = []nodeattest.KubernetesConfig{{
			Cluster: "prod", Server: api.URL, CAFile: ca, TokenFile: own, Audience: "entente",
			Accounts: []string{"entente:agent"},
		}}
	})
	r := configured(t, "")
	r.cfg.Kubernetes = &agent.Kubernetes{Cluster: "prod", TokenFile: projected}
	r.cfg.TrustDomain, r.cfg.TrustBundle, r.cfg.Addresses = home, bundle, []string{m.Address}
	r.start(t)
	shown, err := c.Agents().GetAgent(context1(t), &ententev1.GetAgentRequest{
		Name: "k8s.prod.6f1c0b52-0a3e-4d39-9d7c-0c8f5f3c1a11",
	})
	require.NoError(t, err)
	require.Equal(t, "k8s_psat", shown.GetAttestation())
	require.Contains(t, shown.GetSelectors(), "k8s_psat:agent_sa:agent")
	r.end(t)
	other := configured(t, "")
	other.cfg.Kubernetes = &agent.Kubernetes{Cluster: "test", TokenFile: projected}
	other.cfg.TrustDomain, other.cfg.TrustBundle, other.cfg.Addresses = home, bundle, []string{m.Address}
	require.ErrorContains(t, agent.Run(context1(t), other.cfg, agent.Options{LogOutput: io.Discard}),
		`attests no agents by the Kubernetes cluster "test"`)
}
