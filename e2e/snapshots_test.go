package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"filippo.io/age"
	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/internal/shorttest"
)

// TestScheduledSnapshotIsRestored: what a member saved by itself, encrypted, makes a new cluster after all members of
// the old one are lost.
func TestScheduledSnapshotIsRestored(t *testing.T) {
	shorttest.Skip(t, "runs members as processes")
	identity, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	folder := t.TempDir()
	key := filepath.Join(folder, "key.txt")
	require.NoError(t, os.WriteFile(key, []byte(identity.String()), 0o600))
	backups := filepath.Join(folder, "backups")
	eu := newCluster(t, "eu", 1, "")
	_, err = eu.members[0].socket().Domains().CreateDomain(t.Context(), &ententev1.CreateDomainRequest{
		Domain: &ententev1.Domain{TrustDomain: "shop.example.org"},
	})
	require.NoError(t, err)

	// The member saves one when it starts, since the folder has none.
	configuration := filepath.Join(eu.members[0].dir, "entente.hcl")
	text, err := os.ReadFile(configuration)
	require.NoError(t, err)
	text = fmt.Appendf(text, "snapshots {\n  dir = %q\n  recipients = [%q]\n}\n", backups, identity.Recipient())
	require.NoError(t, os.WriteFile(configuration, text, 0o600))
	eu.members[0].kill()
	eu.start(eu.members[0])
	var file string
	eventually(t, "the member saved a snapshot", func() error {
		found, err := filepath.Glob(filepath.Join(backups, "eu-1@eu-*.snapshot.age"))
		if err != nil || len(found) == 0 {
			return errors.Join(err, errors.New("there is none"))
		}
		file = found[0]
		return nil
	})
	eu.members[0].kill()

	again := newCluster(t, "eu", 1, "")
	out, err := exec.Command(binary, "cluster", "snapshot", "restore", file, "--identity", key, "--yes", "--socket",
		filepath.Join(again.members[0].dir, "data", "admin.sock")).CombinedOutput()
	require.NoError(t, err, "%s", out)
	eventually(t, "the new cluster hosts the domain", func() error {
		_, err := again.members[0].socket().Domains().GetDomain(t.Context(), &ententev1.GetDomainRequest{
			TrustDomain: "shop.example.org",
		})
		return err
	})
}
