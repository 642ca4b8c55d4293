package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

// terraform is a folder with a configuration and a state, in which the real terraform runs with the provider.
type terraform struct {
	testing.TB
	dir string
	env []string
}

// newTerraform returns a folder whose provider calls a cluster as an administrator, at the addresses of all members.
func newTerraform(t testing.TB, c *cluster) *terraform {
	t.Helper()
	if _, err := exec.LookPath("terraform"); err != nil {
		require.Empty(t, os.Getenv("CI"), "terraform is missing, and in CI nothing is left out")
		t.Skip("left out: needs terraform 1.11 or later on the PATH")
	}
	w := &terraform{TB: t, dir: t.TempDir()}
	build := exec.Command("go", "build", "-o", filepath.Join(w.dir, "terraform-provider-entente"),
		"../cmd/terraform-provider-entente")
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	w.write("terraform.rc", fmt.Sprintf("provider_installation {\n  dev_overrides {\n    \"ententehq/entente\" = %q\n"+
		"  }\n  direct {}\n}\n", w.dir))
	p, id := c.members[0], "spiffe://"+c.domain+"/terraform"
	p.command("access", "grant", "admin", "--spiffe-id", id)
	p.command("svid", "x509", "--spiffe-id", id, "--dir", filepath.Join(w.dir, "svid"))
	var addresses []string
	for _, m := range c.members {
		addresses = append(addresses, m.api)
	}
	w.env = append(os.Environ(), "TF_CLI_CONFIG_FILE="+filepath.Join(w.dir, "terraform.rc"), "TF_IN_AUTOMATION=1",
		"CHECKPOINT_DISABLE=1", "ENTENTE_SOCKET=", "ENTENTE_ADDRESS="+strings.Join(addresses, ","),
		"ENTENTE_CERT="+filepath.Join(w.dir, "svid", "svid.pem"),
		"ENTENTE_KEY="+filepath.Join(w.dir, "svid", "svid.key"),
		"ENTENTE_BUNDLE="+filepath.Join(w.dir, "svid", "bundle.pem"))
	return w
}

func (w *terraform) write(name, content string) {
	w.Helper()
	require.NoError(w, os.WriteFile(filepath.Join(w.dir, name), []byte(content), 0o600))
}

// many configures a number of grants and of relationships.
func (w *terraform) many(grants, relationships int) {
	w.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(w, err)
	for i := range relationships {
		td := foreignDomain(i)
		w.write(td.Name()+".json", string(foreignBundle(w, td, key)))
	}
	w.write("main.tf", fmt.Sprintf(`
terraform {
  required_providers {
    entente = { source = "ententehq/entente" }
  }
}
provider "entente" {}
resource "entente_access_grant" "many" {
  count     = %d
  role      = "reader"
  spiffe_id = "spiffe://reader.example.org/${count.index}"
}
resource "entente_federation_relationship" "many" {
  count              = %d
  trust_domain       = format("d%%05d.example.org", count.index)
  url                = "https://127.0.0.1:1/"
  profile            = "https_spiffe"
  endpoint_spiffe_id = format("spiffe://d%%05d.example.org/entente/bundle-endpoint", count.index)
  bootstrap_wo       = file(format("${path.module}/d%%05d.example.org.json", count.index))
}
`, grants, relationships))
}

func foreignDomain(i int) spiffeid.TrustDomain {
	return spiffeid.RequireTrustDomainFromString(fmt.Sprintf("d%05d.example.org", i))
}

// command prepares a command of terraform.
func (w *terraform) command(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(w.Context(), "terraform", append(args, "-no-color")...)
	cmd.Dir, cmd.Env = w.dir, w.env
	return cmd
}

// run runs a command of terraform, which has to succeed.
func (w *terraform) run(args ...string) {
	w.Helper()
	out, err := w.command(args...).CombinedOutput()
	require.NoError(w, err, "%s", out)
}

// counted returns how many grants and relationships of a test a cluster has.
func counted(t testing.TB, p *process) (grants, relationships int) {
	t.Helper()
	all, err := p.socket().Access().ListGrants(t.Context(), &ententev1.ListGrantsRequest{})
	require.NoError(t, err)
	for _, g := range all.GetGrants() {
		if strings.HasPrefix(g.GetSpiffeId(), "spiffe://reader.example.org/") {
			grants++
		}
	}
	q := &ententev1.ListRelationshipsRequest{}
	for {
		page, err := p.socket().Federation().ListRelationships(t.Context(), q)
		require.NoError(t, err)
		relationships += len(page.GetRelationships())
		if q.PageToken = page.GetNextPageToken(); q.PageToken == "" {
			return grants, relationships
		}
	}
}

// The leader is killed in the middle of an apply of 200 resources: the apply succeeds, every resource exists once, and
// a plan after it is empty.
func TestApplyWhileTheLeaderIsKilled(t *testing.T) {
	c := newCluster(t, "eu", 3, quick)
	w := newTerraform(t, c)
	w.many(100, 100)
	leader := c.leader()
	watcher := c.others(leader)[0]
	apply := w.command("apply", "-auto-approve")
	var out strings.Builder
	apply.Stdout, apply.Stderr = &out, &out
	require.NoError(t, apply.Start())
	ended := make(chan error, 1)
	go func() { ended <- apply.Wait() }()
	eventually(t, "some of the resources exist", func() error {
		if grants, relationships := counted(t, watcher); grants+relationships < 20 {
			return fmt.Errorf("%d grants and %d relationships", grants, relationships)
		}
		return nil
	})
	leader.kill()
	grants, relationships := counted(t, watcher)
	require.Less(t, grants+relationships, 200, "the apply had ended before the leader was killed")
	require.NoError(t, <-ended, "%s", &out)
	require.NotEqual(t, leader, c.leader())
	grants, relationships = counted(t, watcher)
	require.Equal(t, 100, grants)
	require.Equal(t, 100, relationships)
	w.run("plan", "-detailed-exitcode")
}
