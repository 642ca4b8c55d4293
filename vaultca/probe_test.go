package vaultca

import (
	"cmp"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/authority/upstream"
	"github.com/ententehq/entente/vaultca/vault"
)

// mount answers as the PKI mount "pki" of a Vault does whose default issuer is a company's CA.
type mount struct {
	t *testing.T
	// denial is the status of what a policy should deny. If 0, it is 403.
	denial int

	mu            sync.Mutex
	root, issuing ca
}

// company makes an issuing CA below a root the default issuer. edit changes its template.
func (m *mount) company(edit func(*x509.Certificate)) {
	lasting := func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(1000*time.Hour)
	}
	root := ca{}.make(m.t, "Company Root", newKey(m.t), lasting)
	issuing := root.make(m.t, "Company Issuing CA", newKey(m.t), func(c *x509.Certificate) {
		lasting(c)
		edit(c)
	})
	m.mu.Lock()
	defer m.mu.Unlock()
	m.root, m.issuing = root, issuing
}

func pemText(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// sign signs the certificate of a request, or returns the status of a refusal.
func (m *mount) sign(r *http.Request) (der []byte, refused int) {
	var in struct {
		CSR  string `json:"csr"`
		URI  string `json:"uri_sans"`
		TTL  string `json:"ttl"`
		Wide bool   `json:"use_csr_values"`
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil || in.Wide || in.URI != domain.IDString() {
		return nil, cmp.Or(m.denial, http.StatusForbidden)
	}
	block, _ := pem.Decode([]byte(in.CSR))
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	ttl, errTTL := time.ParseDuration(in.TTL)
	if err != nil || errTTL != nil {
		return nil, http.StatusBadRequest
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "Entente authority"},
		NotBefore: time.Now().Add(-backdating), NotAfter: time.Now().Add(ttl), IsCA: true,
		BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		URIs: []*url.URL{domain.ID().URL()},
	}
	der, err = x509.CreateCertificate(rand.Reader, template, m.issuing.Certificate, csr.PublicKey, m.issuing.key)
	if err != nil {
		return nil, http.StatusInternalServerError
	}
	return der, 0
}

func (m *mount) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	chain := []string{pemText(m.issuing.Raw), pemText(m.root.Raw)}
	var data map[string]any
	switch r.URL.Path {
	case "/v1/auth/token/lookup-self":
		data = map[string]any{"ttl": 3600, "renewable": false}
	case "/v1/pki/issuer/default/json":
		data = map[string]any{"certificate": chain[0], "ca_chain": chain}
	case "/v1/pki/issuer/default/sign-intermediate":
		der, refused := m.sign(r)
		if refused != 0 {
			w.WriteHeader(refused)
			return
		}
		data = map[string]any{"certificate": pemText(der), "ca_chain": chain}
	default:
		w.WriteHeader(http.StatusNotFound)
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"data": data})
}

// serve starts the mount, and returns a configuration for it.
func (m *mount) serve() Config {
	server := httptest.NewTLSServer(m)
	m.t.Cleanup(server.Close)
	file := filepath.Join(m.t.TempDir(), "ca.pem")
	require.NoError(m.t, os.WriteFile(file, []byte(pemText(server.Certificate().Raw)), 0o600))
	return Config{
		Config: vault.Config{
			Address: server.URL, CAFile: file, Auth: vault.Token{Token: text("s.token")}, RetryFor: time.Second,
		},
		Mounts:       map[spiffeid.TrustDomain]Mount{domain: {Path: "pki"}},
		PollInterval: 50 * time.Millisecond,
		Sample: func(td spiffeid.TrustDomain) (upstream.Sample, error) {
			return upstream.SampleOf(td, domain, "eu-1", "eu-1.example.org:7440", "")
		},
	}
}

// TestCheckTriesAnSVID: before the check reports ok, an X509-SVID is signed below the issuer and verified, and what is
// refused is a failure that names the certificate and the extension.
func TestCheckTriesAnSVID(t *testing.T) {
	const refused = "verifiers refuse X509-SVIDs below this issuer; have its certificate replaced, or make another " +
		"issuer the default: certificate \"CN=Company Issuing CA\" (serial "
	for _, test := range []struct {
		name string
		edit func(*x509.Certificate)
		want string
	}{
		{"as it should be", func(*x509.Certificate) {}, ""},
		{"key usage not critical", func(c *x509.Certificate) {
			c.KeyUsage = 0
			c.ExtraExtensions = []pkix.Extension{{Id: []int{2, 5, 29, 15}, Value: []byte{3, 2, 1, 0x86}}}
		}, ""},
		{"no key usage", func(c *x509.Certificate) { c.KeyUsage = 0 },
			"key usage: it is missing, and go-spiffe requires keyCertSign below an anchor"},
		{"server authentication alone",
			func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} },
			"extended key usage: it is present and does not have both serverAuth and clientAuth, which OpenSSL " +
				"requires also above a leaf"},
		{"the member's host is not permitted",
			func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"corp.example"} },
			`name constraints: the DNS name "eu-1.example.org" is in no permitted subtree`},
		{"SPIFFE IDs are excluded",
			func(c *x509.Certificate) { c.ExcludedURIDomains = []string{"example.org"} },
			`name constraints: the URI "spiffe://eu.example.org" is in an excluded subtree`},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := &mount{t: t}
			m.company(test.edit)
			findings := Check(t.Context(), m.serve())
			at := slices.IndexFunc(findings, func(f vault.Finding) bool {
				return f.Subject == "eu.example.org signing"
			})
			require.GreaterOrEqual(t, at, 0)
			if test.want == "" {
				require.Equal(t, vault.Finding{
					Severity: vault.OK, Subject: "eu.example.org signing",
					Detail: "signs for spiffe://eu.example.org, and verifiers accept an X509-SVID below",
				}, findings[at])
				return
			}
			require.Equal(t, vault.Failure, findings[at].Severity)
			require.Contains(t, findings[at].Detail, refused)
			require.Contains(t, findings[at].Detail, "): "+test.want)
		})
	}
}

// TestChangedIssuerIsTried: a member that does not need a signature yet learns that the new default issuer is of no
// use, and again that it was replaced.
func TestChangedIssuerIsTried(t *testing.T) {
	m := &mount{t: t}
	m.company(func(*x509.Certificate) {})
	config := m.serve()
	config.Registerer = prometheus.NewRegistry()
	u := open(t, config)
	run(t, u)
	up := func(want float64) {
		t.Helper()
		require.Eventually(t, func() bool {
			return testutil.CollectAndCount(u.metrics.up) > 1 &&
				testutil.ToFloat64(u.metrics.up.WithLabelValues(domain.Name(), "issuer")) == want
		}, time.Minute, 20*time.Millisecond)
	}
	up(1)
	m.company(func(c *x509.Certificate) { c.KeyUsage = 0 })
	up(0)
	require.Equal(t, map[string]string{"issuer": "unfit_issuer"}, func() map[string]string {
		u.mu.Lock()
		defer u.mu.Unlock()
		return u.failing[domain]
	}())
	m.company(func(*x509.Certificate) {})
	up(1)
}

// TestCheckClaimsOnlyWhatItSaw: an attempt that failed otherwise than by a denial shows no right, and nothing is
// reported of a mount that is not there but that.
func TestCheckClaimsOnlyWhatItSaw(t *testing.T) {
	m := &mount{t: t, denial: http.StatusBadRequest}
	m.company(func(*x509.Certificate) {})
	config := m.serve()
	of := func(findings []vault.Finding, subject string) (texts []string) {
		for _, f := range findings {
			if f.Subject == "eu.example.org "+subject {
				texts = append(texts, string(f.Severity)+": "+f.Detail)
			}
		}
		return texts
	}
	require.Equal(t, []string{
		"warning: whether the token could sign for other trust domains is not known, since the attempt failed " +
			"otherwise: Vault rejects the request (HTTP 400)",
		"warning: whether the token could take names and usages from the request is not known, since the attempt " +
			"failed otherwise: Vault rejects the request (HTTP 400)",
	}, of(Check(t.Context(), config), "rights"))

	config.Mounts[domain] = Mount{Path: "nowhere"}
	findings := Check(t.Context(), config)
	require.Equal(t, []string{"failure: read issuer default of Vault mount nowhere: Vault has nothing there; check " +
		"the mount, the issuer and the namespace (HTTP 404)"}, of(findings, "anchors"))
	require.Equal(t, []string{"failure: Vault has nothing there; check the mount, the issuer and the namespace " +
		"(HTTP 404)"}, of(findings, "signing"))
	require.Empty(t, of(findings, "rights"))
	require.Empty(t, of(findings, "roles"))
}
