package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/vaultca/vaulttest"
)

// vaultCheck is a configuration that names a Vault, and `entente vault check` of it.
type vaultCheck struct {
	t                           *testing.T
	dir, address, caFile, mount string
	auth, more                  string // the auth block, and further settings of the upstream
	keys                        string
}

func newVaultCheck(t *testing.T, address, caFile, mount, auth string) *vaultCheck {
	return &vaultCheck{
		t: t, dir: t.TempDir(), address: address, caFile: caFile, mount: mount, auth: auth,
		keys: `encryption "none" {}`,
	}
}

// secret writes a file and returns the reference to it.
func (c *vaultCheck) secret(name, value string) string {
	c.t.Helper()
	path := filepath.Join(c.dir, name)
	require.NoError(c.t, os.WriteFile(path, []byte(value), 0o600))
	return fmt.Sprintf("%q", "file:"+path)
}

// run returns what the command prints, and its error.
func (c *vaultCheck) run() (string, error) {
	c.t.Helper()
	c.secret("entente.hcl", fmt.Sprintf(`
cluster {
  name         = "eu"
  trust_domain = "eu.example.org"
  region       = "eu-1"
}
member {
  id       = "eu-1"
  zone     = "a"
  data_dir = "%[1]s/data"
  listen   = "127.0.0.1:8443"
}
upstream "vault" {
  address   = %[2]q
  ca_file   = %[3]q
  pki_mount = %[4]q
  %[5]s
  %[6]s
}
authority {
  keys "disk" {
    %[7]s
  }
}
`, c.dir, c.address, c.caFile, c.mount, c.auth, c.more, c.keys))
	ctx, cancel := context.WithTimeout(c.t.Context(), 2*waitLimit)
	defer cancel()
	out, err := exec.CommandContext(ctx, binary, "vault", "check", "--config", filepath.Join(c.dir, "entente.hcl")).
		CombinedOutput()
	return string(out), err
}

// passes requires that nothing is found, and returns what the command prints.
func (c *vaultCheck) passes() string {
	c.t.Helper()
	out, err := c.run()
	require.NoError(c.t, err, out)
	require.NotContains(c.t, out, "failure")
	return out
}

// finds requires that the command fails with some lines.
func (c *vaultCheck) finds(status string, lines ...string) {
	c.t.Helper()
	out, err := c.run()
	require.EqualError(c.t, err, "exit status "+status, out)
	for _, line := range lines {
		require.Contains(c.t, out, line)
	}
}

// TestVaultCheckFindings: a person who tries out a configuration reads what fails, and what to do about it.
func TestVaultCheckFindings(t *testing.T) {
	t.Parallel()
	v := vaulttest.Start(t)
	mount := v.PKI(t)
	auth, roleID, secretID := v.AppRole(
		t, v.Policy(t, command(t, "vault", "policy", "--mount", mount, "--domain", "eu.example.org")), nil,
	)
	c := newVaultCheck(t, v.Address, v.CAFile, mount, "")
	login := func(role, secret string) {
		c.auth = fmt.Sprintf(`auth "approle" {
    mount     = %q
    role_id   = %s
    secret_id = %s
  }`, auth, c.secret("role_id", role), c.secret("secret_id", secret))
	}
	login(roleID, secretID)
	c.passes()

	const denied = "failure  login: log in to Vault by approle: Vault does not accept the login"
	login("somebody", secretID)
	c.finds("1", denied+"; check the auth block and what it points at")
	spent := v.Write(t, "auth/"+auth+"/role/entente/secret-id", nil).Data
	v.Write(
		t, "auth/"+auth+"/role/entente/secret-id-accessor/destroy",
		map[string]any{"secret_id_accessor": spent["secret_id_accessor"]},
	)
	login(roleID, spent["secret_id"].(string))
	c.finds("1", denied)

	v.Seal(t)
	login(roleID, secretID)
	c.finds("1", "Vault is sealed or has no active node; unseal it",
		"with this configuration a member cannot use Vault as it must")
}

// TestVaultCheckTriesTheIssuer: an issuing CA below which verifiers refuse SVIDs is found before anything is signed,
// and the line names the certificate and the extension.
func TestVaultCheckTriesTheIssuer(t *testing.T) {
	t.Parallel()
	v := vaulttest.Shared(t)
	for name, c := range map[string]struct {
		edit func(*x509.Certificate)
		want string // empty: it is fit
	}{
		"a key usage that is not critical": {func(c *x509.Certificate) {
			c.KeyUsage = 0
			c.ExtraExtensions = []pkix.Extension{{Id: []int{2, 5, 29, 15}, Value: []byte{3, 2, 1, 6}}}
		}, ""},
		"no key usage": {func(c *x509.Certificate) { c.KeyUsage = 0 },
			"key usage: it is missing, and go-spiffe requires keyCertSign below an anchor"},
		"server authentication alone": {
			func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} },
			"extended key usage: it is present and does not have both serverAuth and clientAuth"},
	} {
		t.Run(name, func(t *testing.T) {
			mount := v.EmptyPKI(t)
			v.Write(t, mount+"/config/ca", map[string]any{"pem_bundle": companyCA(t, c.edit)})
			check := newVaultCheck(t, v.Address, v.CAFile, mount, "")
			check.auth = `auth "token" { token = ` + check.secret("token", v.RootToken) + " }"
			if c.want == "" {
				out, err := check.run()
				require.NotContains(t, out, "key usage", "%v", err)
				require.Contains(t, out, "signs for spiffe://eu.example.org, and verifiers accept an X509-SVID below")
				return
			}
			check.finds("1", "verifiers refuse X509-SVIDs below this issuer; have its certificate replaced, or make "+
				`another issuer the default: certificate "CN=Company Issuing CA" (serial `, c.want)
		})
	}
}

// companyCA returns an issuing CA below a root of its own, in PEM with its key.
func companyCA(t *testing.T, edit func(*x509.Certificate)) string {
	t.Helper()
	var out []byte
	sign := func(name string, parent *x509.Certificate, by *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		require.NoError(t, err)
		c := &x509.Certificate{
			SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * 365 * time.Hour),
			IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		}
		if parent == nil {
			parent, by = c, key
		} else {
			edit(c)
		}
		der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), by)
		require.NoError(t, err)
		out = append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), out...)
		parsed, err := x509.ParseCertificate(der)
		require.NoError(t, err)
		return parsed, key
	}
	root, rootKey := sign("Company Root", nil, nil)
	_, key := sign("Company Issuing CA", root, rootKey)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	return string(out) + string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// TestVaultCheckBehindAddresses: what stands between a member and Vault, and how it is reached: standby nodes, an agent
// on this machine, answers that are none, and mounts that are not there.
func TestVaultCheckBehindAddresses(t *testing.T) {
	t.Parallel()
	v := vaulttest.Shared(t)
	mount := v.PKI(t)
	proxy := vaulttest.NewProxy(t, v)
	c := newVaultCheck(t, proxy.Address, proxy.CAFile, mount, "")
	c.auth = `auth "token" { token = ` + c.secret("token", v.RootToken) + " }"
	out, err := c.run()
	require.NoError(t, err, out)

	redirect := func(to string) vaulttest.Fault {
		return func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, to+r.URL.Path, http.StatusTemporaryRedirect)
		}
	}
	proxy.Break(redirect(proxy.Address)) // to itself, again and again
	c.finds("1", "Vault redirects more than once, or to plain HTTP; check api_addr of its nodes, and what stands "+
		"between")
	proxy.Break(redirect("http://127.0.0.1:1"))
	c.finds("1", "Vault redirects more than once, or to plain HTTP")
	proxy.Heal()

	// An empty answer is no login.
	login := newVaultCheck(t, proxy.Address, proxy.CAFile, mount, "")
	login.auth = `auth "approle" {
    role_id   = ` + login.secret("role_id", "r") + `
    secret_id = ` + login.secret("secret_id", "s") + `
  }`
	proxy.Break(vaulttest.Answer("{}"))
	login.finds("1", "failure  login: log in to Vault by approle: ")

	// What fails otherwise than by a denial shows no right.
	proxy.Break(proxy.Only("/sign-intermediate", vaulttest.Status(http.StatusBadRequest)))
	out, err = c.run()
	require.EqualError(t, err, "exit status 1", out)
	require.NotContains(t, out, "rights: the token could sign for other trust domains")
	require.Contains(t, out, "whether the token could sign for other trust domains is not known, since the "+
		"attempt failed")
	require.Contains(t, out, "Vault rejects the request (HTTP 400")
	proxy.Heal()

	c.mount = "nowhere"
	out, err = c.run()
	require.EqualError(t, err, "exit status 1", out)
	require.NotContains(t, out, " roles:", "nothing is said of roles in a mount that is not there")
	require.Contains(t, out, "failure  ")
	c.mount = mount

	// Plain HTTP is for an agent on this machine, and has to be requested.
	c.address = "http://vault.example.org:8200"
	c.finds("1", "for a Vault Agent on this machine, set plain_loopback = true")
	c.more = "plain_loopback = true"
	c.finds("1", `address "http://vault.example.org:8200": plain_loopback allows plain HTTP to an address of `+
		`this machine`)
}
