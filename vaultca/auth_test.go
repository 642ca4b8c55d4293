package vaultca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/vaultca/vault"
	"github.com/ententehq/entente/vaultca/vaulttest"
)

func TestTokenIsReadAgain(t *testing.T) {
	v := vaulttest.Shared(t)
	mount := v.PKI(t)
	config := configFor(t, v, mount, nil)
	policy := policyFor(t, v, mount)
	token := v.Token(t, policy, "1h")
	config.Auth = vault.Token{Token: func() (string, error) { return token, nil }}
	u := open(t, config)
	signs(t, u)
	require.NoError(t, v.Client(t).Auth().Token().RevokeOrphan(token))
	_, err := u.SignCA(t.Context(), signRequest(t))
	require.ErrorIs(t, err, vault.ErrLogin)
	token = v.Token(t, policy, "1h")
	signs(t, u)
}

func TestCertificateLogin(t *testing.T) {
	v := vaulttest.Shared(t)
	mount := v.PKI(t)
	auth := v.EnableAuth(t, "cert")
	cert, key := clientCertificate(t)
	v.Write(t, "auth/"+auth+"/certs/entente", map[string]any{
		"certificate": cert, "token_policies": policyFor(t, v,
			mount), "token_no_default_policy": true, "token_ttl": "1h",
	})
	folder := t.TempDir()
	config := configFor(t, v, mount, nil)
	config.Auth = vault.Certificate{
		Mount:    auth,
		Role:     "entente",
		CertFile: filepath.Join(folder, "c.pem"),
		KeyFile:  filepath.Join(folder, "k.pem"),
	}
	u := open(t, config)
	_, err := u.SignCA(t.Context(), signRequest(t))
	require.ErrorContains(t, err, "c.pem: no such file or directory")

	other, otherKey := clientCertificate(t)
	require.NoError(t, os.WriteFile(filepath.Join(folder, "c.pem"), []byte(other), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(folder, "k.pem"), []byte(otherKey), 0o600))
	_, err = u.SignCA(t.Context(), signRequest(t))
	require.ErrorIs(t, err, vault.ErrLogin)

	require.NoError(t, os.WriteFile(filepath.Join(folder, "c.pem"), []byte(cert), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(folder, "k.pem"), []byte(key), 0o600))
	signs(t, u)
	s, _, err := u.caller.Session(t.Context())
	require.NoError(t, err)
	_, err = u.caller.Renew(t.Context(), s)
	require.NoError(t, err)
}

func clientCertificate(t *testing.T) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(
			time.Now().UnixNano(),
		), Subject: pkix.Name{CommonName: "member"}, NotBefore: signRequest(t).Now.AddDate(0, 0, -1),
		NotAfter:    signRequest(t).Now.AddDate(1, 0, 0),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, DNSNames: []string{"member.example.org"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	require.NoError(t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	return string(
			pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		), string(
			pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}),
		)
}

// reviewer stands for the one call of Kubernetes' API that Vault makes: it accepts one service account token.
type reviewer struct {
	mu    sync.Mutex
	valid string
}

func (r *reviewer) accept(token string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.valid = token
}

func (r *reviewer) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	var review struct {
		Spec struct{ Token string }
	}
	_ = json.NewDecoder(request.Body).Decode(&review)
	r.mu.Lock()
	valid := review.Spec.Token == r.valid
	r.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(map[string]any{
		"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
		"status": map[string]any{
			"authenticated": valid,
			"user": map[string]any{
				"username": "system:serviceaccount:mesh:entente",
				"uid":      "1",
				"groups":   []string{"system:serviceaccounts"},
			},
		},
	})
}

// serviceAccountJWT is a token as Kubernetes makes it, but for the signature, which only Kubernetes looks at.
func serviceAccountJWT(id string) string {
	part := func(v any) string {
		raw, _ := json.Marshal(v)
		return base64.RawURLEncoding.EncodeToString(raw)
	}
	return part(map[string]any{"alg": "RS256", "typ": "JWT"}) + "." + part(map[string]any{
		"iss": "kubernetes/serviceaccount", "sub": "system:serviceaccount:mesh:entente", "jti": id,
		"kubernetes.io/serviceaccount/namespace":            "mesh",
		"kubernetes.io/serviceaccount/service-account.name": "entente",
		"kubernetes.io/serviceaccount/service-account.uid":  "1", "kubernetes.io/serviceaccount/secret.name": "s",
	}) + "." + base64.RawURLEncoding.EncodeToString([]byte("signature"))
}

func TestKubernetesTokenIsReadAtEachLogin(t *testing.T) {
	v := vaulttest.Shared(t)
	mount := v.PKI(t)
	kubernetes := &reviewer{}
	server := httptest.NewTLSServer(kubernetes)
	t.Cleanup(server.Close)
	auth := v.EnableAuth(t, "kubernetes")
	v.Write(t, "auth/"+auth+"/config", map[string]any{
		"kubernetes_host": server.URL, "disable_local_ca_jwt": true,
		"kubernetes_ca_cert": string(
			pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}),
		),
	})
	v.Write(t, "auth/"+auth+"/role/entente", map[string]any{
		"bound_service_account_names": "entente", "bound_service_account_namespaces": "mesh",
		"token_policies": policyFor(t, v, mount), "token_no_default_policy": true, "token_ttl": "1h",
	})
	file := filepath.Join(t.TempDir(), "token")
	config := configFor(t, v, mount, nil)
	config.Auth = vault.Kubernetes{Mount: auth, Role: "entente", TokenFile: file}
	u := open(t, config)
	for _, id := range []string{"first", "second"} {
		token := serviceAccountJWT(id)
		require.NoError(t, os.WriteFile(file, []byte(token+"\n"), 0o600))
		kubernetes.accept(token)
		signs(t, u)
		require.NoError(t, v.Client(t).Auth().Token().RevokeOrphan(u.caller.Token()))
	}
	kubernetes.accept("a third one")
	_, err := u.SignCA(t.Context(), signRequest(t))
	require.ErrorIs(t, err, vault.ErrLogin)
}

func TestEnvironmentIsIgnored(t *testing.T) {
	v := vaulttest.Shared(t)
	config := configFor(t, v, v.PKI(t), nil)
	t.Setenv("VAULT_ADDR", "https://127.0.0.1:1")
	t.Setenv("VAULT_TOKEN", "another token")
	t.Setenv("VAULT_NAMESPACE", "elsewhere")
	t.Setenv("VAULT_SKIP_VERIFY", "true")
	signs(t, open(t, config))
	config.CAFile, config.Registerer = "", nil
	_, err := open(t, config).SignCA(t.Context(), signRequest(t))
	require.ErrorIs(t, err, vault.ErrUntrusted)
}
