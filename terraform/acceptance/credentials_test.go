package acceptance

import (
	"context"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/client"
)

// identity writes an X509-SVID as files and gives its SPIFFE ID a role. It returns the environment of the provider.
func (w *workspace) identity(c *client.Client, path string, role ententev1.Role) []string {
	w.Helper()
	id := spiffeid.RequireFromString("spiffe://dev.example.org" + path)
	_, err := c.Access().GrantRole(w.Context(), &ententev1.GrantRoleRequest{
		Grant: &ententev1.Grant{Role: role, SpiffeId: id.String()},
	})
	require.NoError(w, err)
	w.Cleanup(func() {
		_, err := c.Access().RevokeRole(context.Background(),
			&ententev1.RevokeRoleRequest{Role: role, SpiffeId: id.String()})
		require.NoError(w, err)
	})
	dir := w.TempDir()
	w.issue(c, id, dir)
	return []string{
		"ENTENTE_SOCKET=", "ENTENTE_ADDRESS=127.0.0.1:1," + member.Address,
		"ENTENTE_CERT=" + filepath.Join(dir, "cert"), "ENTENTE_KEY=" + filepath.Join(dir, "key"),
		"ENTENTE_BUNDLE=" + filepath.Join(dir, "bundle"),
	}
}

// issue writes a new X509-SVID.
func (w *workspace) issue(c *client.Client, id spiffeid.ID, dir string) {
	w.Helper()
	w.issueFor(c, id, dir, 0)
}

// issueFor writes a new X509-SVID of a lifetime, or of the domain's, and returns when it expires.
func (w *workspace) issueFor(c *client.Client, id spiffeid.ID, dir string, ttl time.Duration) time.Time {
	w.Helper()
	issued, err := c.Issue(w.Context(), client.X509SourceConfig{ID: id, TTL: ttl})
	require.NoError(w, err)
	_, key, err := issued.SVID.Marshal()
	require.NoError(w, err)
	var chain []byte
	for _, certificate := range issued.SVID.Certificates {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw})...)
	}
	for name, content := range map[string][]byte{"cert": chain, "key": key, "bundle": issued.Bundle().PEM()} {
		require.NoError(w, os.WriteFile(filepath.Join(dir, name), content, 0o600))
	}
	return issued.SVID.Certificates[0].NotAfter
}

// A provider with the role reader plans, and its apply fails with the remedy and does nothing by half. The first of its
// addresses is that of no member.
func TestReaderPlansAndCannotApply(t *testing.T) {
	w := newWorkspace(t)
	c := w.administrator()
	w.env = w.identity(c, "/reading", ententev1.Role_ROLE_READER)
	const domains = `
resource "entente_trust_domain" "reader" {
  for_each            = toset(["one", "two"])
  trust_domain        = "${each.key}.reader.example.org"
  deletion_protection = false
}
`
	require.Contains(t, w.plans(domains), "2 to add")
	out := w.refused(domains, "apply", "-auto-approve")
	require.Contains(t, out, "Could not create trust domain one.reader.example.org")
	require.Contains(t, out, "entente access grant --help")
	all, err := c.Domains().ListDomains(t.Context(), &ententev1.ListDomainsRequest{})
	require.NoError(t, err)
	for _, d := range all.GetDomains() {
		require.False(t, strings.HasSuffix(d.GetTrustDomain(), ".reader.example.org"), d.GetTrustDomain())
	}
	// A grant of the missing role is all that it takes.
	w.env = w.identity(c, "/reading", ententev1.Role_ROLE_OPERATOR)
	w.apply(domains)
	w.destroy()
}

// A long apply outlives its credentials: those in the files are used once the first ones have expired.
func TestCredentialsRotateUnderAnApply(t *testing.T) {
	w := newWorkspace(t)
	c := w.administrator()
	w.env = w.identity(c, "/rotating", ententev1.Role_ROLE_ADMIN)
	dir := ""
	for _, variable := range w.env {
		if file, ok := strings.CutPrefix(variable, "ENTENTE_CERT="); ok {
			dir = filepath.Dir(file)
		}
	}
	id := spiffeid.RequireFromString("spiffe://dev.example.org/rotating")
	expires := w.issueFor(c, id, dir, 90*time.Second)
	proceed := filepath.Join(w.dir, "proceed")
	w.configure(`
resource "entente_routing_rule" "first" {
  service = "rotation-first"
  stale   = "keep"
}
resource "terraform_data" "long" {
  depends_on = [entente_routing_rule.first]
  provisioner "local-exec" {
    command = "until [ -e '` + proceed + `' ]; do sleep 0.1; done"
  }
}
resource "entente_routing_rule" "second" {
  depends_on = [terraform_data.long]
  service    = "rotation-second"
  stale      = "keep"
}
`)
	done := make(chan string, 1)
	go func() {
		status, out := w.terraform("apply", "-auto-approve", "-no-color")
		done <- fmt.Sprint(status, out)
	}()
	require.Eventually(t, func() bool {
		_, err := c.Routing().GetRule(t.Context(), &ententev1.GetRuleRequest{Service: "rotation-first"})
		return err == nil
	}, time.Minute, 50*time.Millisecond, "the apply has begun")
	w.issue(c, id, dir)
	require.Eventually(t, func() bool { return time.Now().After(expires) }, 3*time.Minute, 50*time.Millisecond)
	require.NoError(t, os.WriteFile(proceed, nil, 0o600))
	out := <-done
	require.True(t, strings.HasPrefix(out, "0"), out)
	_, err := c.Routing().GetRule(t.Context(), &ententev1.GetRuleRequest{Service: "rotation-second"})
	require.NoError(t, err)
	w.destroy()
}

// Credentials are PEM in the provider block as well as files.
func TestCredentialsAsPEM(t *testing.T) {
	w := newWorkspace(t)
	c := w.administrator()
	env := w.identity(c, "/pem", ententev1.Role_ROLE_READER)
	w.env = []string{"ENTENTE_SOCKET="}
	setting := func(name string) string {
		for _, variable := range env {
			if value, ok := strings.CutPrefix(variable, name+"="); ok {
				return value
			}
		}
		return ""
	}
	w.provider = `
provider "entente" {
  addresses = ["` + member.Address + `"]
  cert      = file("` + setting("ENTENTE_CERT") + `")
  key       = file("` + setting("ENTENTE_KEY") + `")
  bundle    = "` + setting("ENTENTE_BUNDLE") + `"
}
`
	w.configure(`
data "entente_trust_domain" "home" { trust_domain = "dev.example.org" }
`)
	status, out := w.terraform("apply", "-auto-approve", "-no-color")
	require.Zero(t, status, out)
	state, err := os.ReadFile(filepath.Join(w.dir, "terraform.tfstate"))
	require.NoError(t, err)
	require.NotContains(t, string(state), "PRIVATE KEY")
}

// Without a member or with the wrong credentials the message names what to set.
func TestUnusableCredentials(t *testing.T) {
	w := newWorkspace(t)
	const domain = `resource "entente_trust_domain" "x" { trust_domain = "x.example.org" }`
	for _, c := range []struct {
		env  []string
		want string
	}{
		{[]string{"ENTENTE_SOCKET="}, "No cluster is named: set addresses (ENTENTE_ADDRESS) with the credentials"},
		{[]string{"ENTENTE_SOCKET=", "ENTENTE_ADDRESS=127.0.0.1:1", "ENTENTE_CERT=/none"},
			"The setting key is missing: set it (ENTENTE_KEY)"},
		{[]string{"ENTENTE_SOCKET=", "ENTENTE_ADDRESS=eu-1.example.org", "ENTENTE_CERT=/none", "ENTENTE_KEY=/none",
			"ENTENTE_BUNDLE=/none"}, "is not an address: write HOST:PORT"},
		{[]string{"ENTENTE_SOCKET=", "ENTENTE_ADDRESS=127.0.0.1:1", "ENTENTE_CERT=/none", "ENTENTE_KEY=/none",
			"ENTENTE_BUNDLE=/none"}, "no such file"},
		{[]string{"ENTENTE_SOCKET=/none.sock"}, "/none.sock"},
	} {
		w.env = c.env
		require.Contains(t, w.refused(domain, "apply", "-auto-approve"), c.want, c.env)
	}
}
