package vault

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"
)

// node is a server that answers as a Vault node does.
func node(t *testing.T, plain bool, handler http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(handler)
	if plain {
		s.Start()
	} else {
		s.StartTLS()
	}
	t.Cleanup(s.Close)
	return s
}

// trusting writes the certificates of nodes into a file of roots.
func trusting(t *testing.T, nodes ...*httptest.Server) string {
	t.Helper()
	var text []byte
	for _, s := range nodes {
		if cert := s.Certificate(); cert != nil {
			text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})...)
		}
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(file, text, 0o600))
	return file
}

func configured(address, caFile string) Config {
	return Config{
		Address: address, CAFile: caFile, Auth: Token{Token: func() (string, error) { return "s.token", nil }},
		RetryFor: 50 * time.Millisecond, Timeout: 10 * time.Second,
	}.WithDefaults()
}

// answers answers like the active node: what a token is, and a secret at /v1/there.
func answers(t *testing.T) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/auth/token/lookup-self" && r.Header.Get("X-Vault-Token") != "s.token" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		if r.URL.Path != "/v1/auth/token/lookup-self" && r.URL.Path != "/v1/there" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		assert(t, json.NewEncoder(w).Encode(map[string]any{"data": map[string]any{"ttl": 3600, "renewable": false}}))
	}
}

func assert(t *testing.T, err error) {
	if err != nil {
		t.Error(err)
	}
}

func redirectTo(address string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", address+r.URL.RequestURI())
		w.WriteHeader(http.StatusTemporaryRedirect)
	}
}

func there(t *testing.T, c Config) error {
	t.Helper()
	caller, err := Open(c)
	require.NoError(t, err)
	t.Cleanup(caller.Close)
	_, err = caller.Authorized(t.Context(), "read", func(ctx context.Context, client *api.Client) (*api.Secret, error) {
		return client.Logical().ReadWithContext(ctx, "there")
	})
	return err
}

// TestStandbyRedirects: a redirect of a standby node is followed, with the token, to an address that the same roots
// verify. Others are refused by name, and are neither a login nor an answer.
func TestStandbyRedirects(t *testing.T) {
	active := node(t, false, answers(t))
	standby := node(t, false, redirectTo(active.URL))
	roots := trusting(t, active, standby)
	require.NoError(t, there(t, configured(active.URL, roots)))
	require.NoError(t, there(t, configured(standby.URL, roots)))

	twice := node(t, false, redirectTo(standby.URL))
	err := there(t, configured(twice.URL, trusting(t, active, standby, twice)))
	require.ErrorIs(t, err, ErrRedirect)
	require.ErrorContains(t, err, "Vault redirects more than once, or to plain HTTP; check api_addr of its nodes, and "+
		"what stands between: HTTP 307 to "+active.URL+"/v1/auth/token/lookup-self")
	require.Equal(t, "redirect", Reason(err))

	plain := node(t, true, answers(t))
	down := node(t, false, redirectTo(plain.URL))
	err = there(t, configured(down.URL, trusting(t, down)))
	require.ErrorIs(t, err, ErrRedirect)
	require.ErrorContains(t, err, "HTTP 307 to "+plain.URL)

	nowhere := node(t, false, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusTemporaryRedirect)
	})
	err = there(t, configured(nowhere.URL, trusting(t, nowhere)))
	require.ErrorIs(t, err, ErrRedirect)
	require.ErrorContains(t, err, "HTTP 307 without an address")
}

// TestRedirectUnderTheSameRoots: an address that the roots do not verify gets no token.
func TestRedirectUnderTheSameRoots(t *testing.T) {
	reached := make(chan string, 10)
	other := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		reached <- r.Header.Get("X-Vault-Token")
	}))
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	other.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	other.Config.ErrorLog = log.New(io.Discard, "", 0)
	other.StartTLS()
	t.Cleanup(other.Close)
	standby := node(t, false, redirectTo(other.URL))
	require.ErrorIs(t, there(t, configured(standby.URL, trusting(t, standby))), ErrUntrusted)
	require.Empty(t, reached)
}

// TestEmptyAnswerIsNoLogin: whatever has no lifetime of a token in it did not come from Vault.
func TestEmptyAnswerIsNoLogin(t *testing.T) {
	for _, body := range []string{"", "{}", `{"data":null}`, `{"data":{}}`, `{"data":{"id":"x"}}`} {
		s := node(t, false, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(body)) })
		err := there(t, configured(s.URL, trusting(t, s)))
		require.ErrorIs(t, err, ErrMalformed, body)
	}
}

// TestPlainLoopback: plain HTTP is for a Vault Agent on this machine, if the configuration allows it.
func TestPlainLoopback(t *testing.T) {
	agent := node(t, true, answers(t))
	c := configured(agent.URL, "")
	require.EqualError(t, c.Validate(), `address "`+agent.URL+`" is not of the form https://HOST:PORT; for a Vault `+
		`Agent on this machine, set plain_loopback = true`)
	require.ErrorIs(t, there(t, c), ErrUntrusted, "the transport does not rely on the validation")
	c.PlainLoopback = true
	require.NoError(t, c.Validate())
	require.NoError(t, there(t, c))
	for _, address := range []string{"http://vault.example.org:8200", "http://10.0.0.1:8200", "http://[fd00::1]:8200"} {
		c.Address = address
		require.EqualError(t, c.Validate(), `address "`+address+`": plain_loopback allows plain HTTP to an address of `+
			`this machine alone, such as http://127.0.0.1:8100`)
		require.ErrorIs(t, there(t, c), ErrUntrusted)
	}
	// An agent cannot send the caller elsewhere.
	c.Address = node(t, true, redirectTo("http://vault.example.org:8200")).URL
	require.ErrorIs(t, there(t, c), ErrUntrusted)
}

// TestLargeFileOfRoots: a distribution's roots with a company's own are read, and a file without end is not.
func TestLargeFileOfRoots(t *testing.T) {
	active := node(t, false, answers(t))
	own, err := os.ReadFile(trusting(t, active))
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "roots.pem")
	write := func(size int) {
		comment := strings.Repeat("# a root of the web and what is written about it\n", size/49)
		require.NoError(t, os.WriteFile(file, append([]byte(comment), own...), 0o600))
	}
	write(3 << 20)
	require.NoError(t, there(t, configured(active.URL, file)))
	write(9 << 20)
	err = there(t, configured(active.URL, file))
	require.ErrorIs(t, err, ErrSecret)
	require.ErrorContains(t, err, file+" is larger than 8388608 bytes")
}
