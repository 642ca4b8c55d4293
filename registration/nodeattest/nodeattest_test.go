package nodeattest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
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
	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/internal/origin"
	"github.com/ententehq/entente/registration/possession"
)

var now = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

// authority signs the certificates of nodes.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "nodes"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return authority{key, cert}
}

func (a authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

func (a authority) issue(t *testing.T, key crypto.Signer, change func(*x509.Certificate)) []byte {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(0x2a), Subject: pkix.Name{CommonName: "Rack 7"},
		DNSNames:  []string{"Node-1.Example.org"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
	}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	require.NoError(t, err)
	return der
}

var session, identity = []byte("a session of 32 bytes............"), [32]byte{7}

func evidence(t *testing.T, key crypto.Signer, der ...[]byte) *ententev1.X509PoPEvidence {
	t.Helper()
	signature, err := possession.Prove(possession.OfNode, key, session, identity[:])
	require.NoError(t, err)
	return &ententev1.X509PoPEvidence{Certificates: der, Signature: signature}
}

func TestX509PoP(t *testing.T) {
	ca := newAuthority(t)
	x := &X509PoP{Roots: ca.pool()}
	ec, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	require.NoError(t, err)
	rs, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	for _, key := range []crypto.Signer{ec, rs, ed} {
		n, err := x.Verify(evidence(t, key, ca.issue(t, key, nil)), session, identity, now)
		require.NoError(t, err)
		require.Equal(t, "x509pop.node-1.example.org", n.Name)
		require.Equal(t, "x509pop", n.Attestation)
		require.Len(t, n.Selectors, 3)
		require.Contains(t, n.Selectors, "x509pop:serialnumber:2a")
		require.Contains(t, n.Selectors, "x509pop:subject:cn:Rack 7")
	}
	for want, m := range map[string]*ententev1.X509PoPEvidence{
		"0 certificates were sent":                  evidence(t, ec),
		"6 certificates were sent":                  evidence(t, ec, make([][]byte, 6)...),
		"cannot be read":                            evidence(t, ec, []byte("x")),
		"the limit":                                 evidence(t, ec, make([]byte, 17<<10)),
		"does not verify by ca_file of this member": evidence(t, ec, newAuthority(t).issue(t, ec, nil)),
		"has expired": evidence(t, ec, ca.issue(t, ec, func(c *x509.Certificate) {
			c.NotAfter = now.Add(-time.Minute)
		})),
		"lacks the key usage": evidence(t, ec, ca.issue(t, ec, func(c *x509.Certificate) {
			c.KeyUsage = 0
		})),
		"one of an authority":               evidence(t, ec, ca.cert.Raw),
		"not by the key of the certificate": evidence(t, rs, ca.issue(t, ec, nil)),
		"names no node": evidence(t, ec, ca.issue(t, ec, func(c *x509.Certificate) {
			c.DNSNames = []string{"*.example.org"}
		})),
		"names no node that an agent": evidence(t, ec, ca.issue(t, ec, func(c *x509.Certificate) {
			c.DNSNames, c.Subject = nil, pkix.Name{}
		})),
	} {
		_, err := x.Verify(m, session, identity, now)
		require.ErrorAs(t, err, new(*Refusal), want)
		require.ErrorContains(t, err, want)
	}
	// The signature is for one session and one key of an agent, and for this purpose.
	good := evidence(t, ec, ca.issue(t, ec, nil))
	_, err = x.Verify(good, []byte("another session"), identity, now)
	require.ErrorContains(t, err, "over this TLS session")
	_, err = x.Verify(good, session, [32]byte{8}, now)
	require.ErrorContains(t, err, "over this TLS session")
	good.Signature, err = possession.Prove(possession.OfMember, ec, session, identity[:])
	require.NoError(t, err)
	_, err = x.Verify(good, session, identity, now)
	require.ErrorContains(t, err, "over this TLS session")
}

func FuzzX509PoP(f *testing.F) {
	f.Add([]byte("x"), []byte("y"))
	x := &X509PoP{Roots: x509.NewCertPool()}
	f.Fuzz(func(t *testing.T, der, signature []byte) {
		m := &ententev1.X509PoPEvidence{Certificates: [][]byte{der}, Signature: signature}
		_, err := x.Verify(m, session, identity, now)
		require.Error(t, err)
	})
}

// apiServer is an HTTPS server that answers TokenReviews as the API server of Kubernetes does.
func apiServer(t *testing.T, answer func(token string) (int, string)) (*Kubernetes, chan *http.Request) {
	t.Helper()
	requests := make(chan *http.Request, 100)
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var review tokenReview
		if err != nil || json.Unmarshal(body, &review) != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		requests <- r
		code, text := answer(review.Spec.Token + " for " + strings.Join(review.Spec.Audiences, ","))
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_, _ = io.WriteString(w, text)
	}))
	t.Cleanup(server.Close)
	dir := t.TempDir()
	ca, token := filepath.Join(dir, "ca.crt"), filepath.Join(dir, "token")
	require.NoError(t, os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{
		Type: "CERTIFICATE", Bytes: server.Certificate().Raw,
	}), 0o600))
	require.NoError(t, os.WriteFile(token, []byte("own-token\n"), 0o600))
	k, err := NewKubernetes(KubernetesConfig{
		Cluster: "prod", Server: server.URL, CAFile: ca, TokenFile: token, Audience: "entente",
		Accounts: []string{"entente:agent"},
	})
	require.NoError(t, err)
	return k, requests
}

// accepted is an answer for a token of a pod on a node.
const accepted = `{"kind":"TokenReview","apiVersion":"authentication.k8s.io/v1","status":{"authenticated":true,
"audiences":["entente"],"user":{"username":"system:serviceaccount:entente:agent","uid":"u",
"groups":["system:serviceaccounts"],
"extra":{"authentication.kubernetes.io/node-name":["ip-10-0-0-1.ec2.internal"],
"authentication.kubernetes.io/node-uid":["6f1c0b52-0a3e-4d39-9d7c-0c8f5f3c1a11"],
"authentication.kubernetes.io/pod-name":["agent-x7"],
"authentication.kubernetes.io/pod-uid":["00000000-0000-4000-8000-000000000000"]}}}}`

// projectedToken returns a token with the claims of one that the kubelet projects, changed.
func projectedToken(t *testing.T, change func(*jwt.Claims)) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, nil)
	require.NoError(t, err)
	claims := jwt.Claims{
		Subject: "system:serviceaccount:entente:agent", Audience: jwt.Audience{"api", "entente"},
		Expiry: jwt.NewNumericDate(now),
	}
	if change != nil {
		change(&claims)
	}
	token, err := jwt.Signed(signer).Claims(claims).Serialize()
	require.NoError(t, err)
	return token
}

var one = origin.Origin{Host: "192.0.2.1"}

func TestKubernetes(t *testing.T) {
	projected := projectedToken(t, nil)
	code, text := http.StatusCreated, accepted
	k, requests := apiServer(t, func(token string) (int, string) {
		require.Equal(t, projected+" for entente", token)
		return code, text
	})
	n, err := k.Verify(t.Context(), projected, one, now)
	require.NoError(t, err)
	require.Equal(t, Node{
		Name: "k8s.prod.6f1c0b52-0a3e-4d39-9d7c-0c8f5f3c1a11", Attestation: "k8s_psat", Selectors: []string{
			"k8s_psat:agent_node_name:ip-10-0-0-1.ec2.internal",
			"k8s_psat:agent_node_uid:6f1c0b52-0a3e-4d39-9d7c-0c8f5f3c1a11", "k8s_psat:agent_ns:entente",
			"k8s_psat:agent_pod_name:agent-x7",
			"k8s_psat:agent_pod_uid:00000000-0000-4000-8000-000000000000", "k8s_psat:agent_sa:agent",
			"k8s_psat:cluster:prod",
		},
	}, n)
	r := <-requests
	require.Equal(t, "/apis/authentication.k8s.io/v1/tokenreviews", r.URL.Path)
	require.Equal(t, "Bearer own-token", r.Header.Get("Authorization"))

	for want, change := range map[string][2]string{
		"does not accept the token":                {`"authenticated":true`, `"authenticated":false,"error":"expired"`},
		`is not for the audience "entente"`:        {`"audiences":["entente"]`, `"audiences":["api"]`},
		`"system:serviceaccount:entente:other" is`: {"entente:agent", "entente:other"},
		`"admin" is not one of the accounts`:       {"system:serviceaccount:entente:agent", "admin"},
		"is not bound to a pod on a node":          {"kubernetes.io/node-uid", "kubernetes.io/node-id"},
		`has the UID "../a"`:                       {"6f1c0b52-0a3e-4d39-9d7c-0c8f5f3c1a11", "../a"},
		`has the UID "a.b"`:                        {"6f1c0b52-0a3e-4d39-9d7c-0c8f5f3c1a11", "a.b"},
		`and its pod ""`:                           {"kubernetes.io/pod-uid", "kubernetes.io/pod-id"},
		`and its pod "p"`:                          {"00000000-0000-4000-8000-000000000000", "p"},
	} {
		code, text = http.StatusCreated, strings.Replace(accepted, change[0], change[1], 1)
		_, err := k.Verify(t.Context(), projected, one, now)
		require.ErrorAs(t, err, new(*Refusal), want)
		require.ErrorContains(t, err, want)
	}
	// What the API server cannot answer decides nothing.
	for want, answer := range map[string]struct {
		code int
		text string
	}{
		"403 Forbidden: the account of this member needs": {http.StatusForbidden, accepted},
		"302 Found":       {http.StatusFound, accepted},
		"read its answer": {http.StatusCreated, "{"},
		"is too large":    {http.StatusCreated, strings.Repeat(" ", maxReview+1)},
		"500 Internal":    {http.StatusInternalServerError, ""},
	} {
		code, text = answer.code, answer.text
		_, err := k.Verify(t.Context(), projected, one, now)
		require.ErrorContains(t, err, want)
		require.NotErrorAs(t, err, new(*Refusal), want)
	}
}

// TestKubernetesClaims: a token that the review could not make count is not sent to the API server.
func TestKubernetesClaims(t *testing.T) {
	k, requests := apiServer(t, func(string) (int, string) { return http.StatusCreated, accepted })
	for want, token := range map[string]string{
		"the token of 0 bytes is no service account token": "",
		"5 bytes is no service account token":              "a.b.c",
		"the token of 16389 bytes":                         strings.Repeat("a", maxToken) + ".b.c.",
		"has expired": projectedToken(t, func(c *jwt.Claims) {
			c.Expiry = jwt.NewNumericDate(now.Add(-skew - time.Second))
		}),
		"or has no end": projectedToken(t, func(c *jwt.Claims) { c.Expiry = nil }),
		`is not for the audience "entente"`: projectedToken(t, func(c *jwt.Claims) {
			c.Audience = jwt.Audience{"api"}
		}),
		`"system:serviceaccount:entente:other" is not one of the accounts`: projectedToken(t, func(c *jwt.Claims) {
			c.Subject = "system:serviceaccount:entente:other"
		}),
		`"entente:agent" is not one of the accounts`: projectedToken(t, func(c *jwt.Claims) {
			c.Subject = "entente:agent"
		}),
	} {
		_, err := k.Verify(t.Context(), token, one, now)
		require.ErrorAs(t, err, new(*Refusal), want)
		require.ErrorContains(t, err, want)
	}
	require.Empty(t, requests)
}

// TestKubernetesReviewsAreShared: one address or site leaves places for reviews to the others.
func TestKubernetesReviewsAreShared(t *testing.T) {
	k, requests := apiServer(t, func(string) (int, string) { return http.StatusCreated, accepted })
	token := projectedToken(t, nil)
	var leave []func()
	enter := func(from origin.Origin) {
		t.Helper()
		l, err := k.enter(from)
		require.NoError(t, err)
		leave = append(leave, l)
	}
	for range hostReviews {
		enter(one)
	}
	busy := func(from origin.Origin) {
		t.Helper()
		_, err := k.Verify(t.Context(), token, from, now)
		require.ErrorContains(t, err, "too many reviews are under way at the API server of prod")
		require.NotErrorAs(t, err, new(*Refusal))
	}
	busy(one)
	enter(origin.Origin{Host: "2001:db8:0:1::/64", Site: "2001:db8::/48"})
	enter(origin.Origin{Host: "2001:db8:0:2::/64", Site: "2001:db8::/48"})
	busy(origin.Origin{Host: "2001:db8:0:3::/64", Site: "2001:db8::/48"})
	require.Empty(t, requests)
	two := origin.Origin{Host: "192.0.2.2"}
	_, err := k.Verify(t.Context(), token, two, now)
	require.NoError(t, err)
	for range 2 {
		enter(two)
		enter(origin.Origin{Host: "192.0.2.3"})
	}
	busy(origin.Origin{Host: "192.0.2.4"})
	for _, l := range leave {
		l()
	}
	require.Zero(t, k.reviews)
	require.Empty(t, k.by)
	_, err = k.Verify(t.Context(), token, one, now)
	require.NoError(t, err)
}
