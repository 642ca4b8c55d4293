package e2e

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// TestNameConstraintsOnRoots: a domain whose roots are constrained to its names, set by the command when it is created
// or later, has SVIDs that Go and OpenSSL verify, although the one ignores a constraint that the other enforces. By
// default, there is none.
func TestNameConstraintsOnRoots(t *testing.T) {
	c := newCluster(t, "eu", 1, "")
	p := c.members[0]
	run := func(args ...string) { t.Log(p.command(args...)) }
	run("domain", "create", "pay.example.org", "--name-constraints")
	run("domain", "create", "shop.example.org")
	run("domain", "create", "later.example.org")
	run("domain", "update", "later.example.org", "--name-constraints")
	run("authority", "rotate", "later.example.org", "--anchors")
	eventually(t, "the authority below the new root signs", func() error {
		for _, a := range listAuthorities(t, p) {
			if a.GetTrustDomain() == "later.example.org" &&
				a.GetKind() == ententev1.AuthorityKind_AUTHORITY_KIND_X509 &&
				a.GetState() == ententev1.AuthorityState_AUTHORITY_STATE_PREPARED {
				run("authority", "activate", a.GetId())
				return nil
			}
		}
		return errors.New("none is prepared")
	})

	_, missing := exec.LookPath("openssl")
	t.Run("OpenSSL is there", func(t *testing.T) {
		if missing != nil {
			t.Skip("left out: verification by OpenSSL, whose command openssl is not on the PATH")
		}
	})
	require.NotContains(t, p.logs(), "zlint has findings", "that a constraint is not critical is no finding")
	for domain, want := range map[string][]string{
		"pay.example.org": {"pay.example.org"}, "shop.example.org": nil, "later.example.org": {"later.example.org"},
	} {
		t.Run(domain, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "svid")
			run("svid", "x509", "--spiffe-id", "spiffe://"+domain+"/web", "--dns", "web.internal", "--dir", dir)
			root, err := rootOf(certificates(t, filepath.Join(dir, "svid.pem")),
				certificates(t, filepath.Join(dir, "bundle.pem")))
			require.NoError(t, err)
			require.Equal(t, want, root.PermittedURIDomains)
			require.False(t, root.PermittedDNSDomainsCritical, "a verifier without URI constraints ignores it")
			require.Empty(t, root.PermittedDNSDomains)
			if missing != nil {
				return
			}
			for _, purpose := range []string{"sslserver", "sslclient"} {
				out, err := exec.CommandContext(t.Context(), "openssl", "verify", "-purpose", purpose,
					"-auth_level", "2", "-no-CApath", "-no-CAstore", "-x509_strict",
					"-CAfile", filepath.Join(dir, "bundle.pem"),
					"-untrusted", filepath.Join(dir, "svid.pem"), filepath.Join(dir, "svid.pem")).CombinedOutput()
				require.NoError(t, err, "%s", out)
			}
		})
	}
}

// rootOf returns the root to which Go verifies a path.
func rootOf(path, roots []*x509.Certificate) (*x509.Certificate, error) {
	anchors, between := x509.NewCertPool(), x509.NewCertPool()
	for _, c := range roots {
		anchors.AddCert(c)
	}
	for _, c := range path[1:] {
		between.AddCert(c)
	}
	chains, err := path[0].Verify(x509.VerifyOptions{
		Roots: anchors, Intermediates: between, DNSName: "web.internal",
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return nil, err
	}
	return chains[0][len(chains[0])-1], nil
}

// certificates reads a PEM file.
func certificates(t *testing.T, file string) (all []*x509.Certificate) {
	t.Helper()
	rest, err := os.ReadFile(file)
	require.NoError(t, err)
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return all
		}
		c, err := x509.ParseCertificate(block.Bytes)
		require.NoError(t, err)
		all = append(all, c)
	}
}
