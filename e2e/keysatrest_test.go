package e2e

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/vaultca/vaulttest"
)

// locked is the sample of a metric that is 1 while a member cannot decrypt its keys.
const locked = "entente_authority_keys_locked "

// TestMemberStartsWithoutVaultAndForwardsSigning restarts a member while Vault is down: it serves, and another member
// signs for it, until it can unwrap its keys.
func TestMemberStartsWithoutVaultAndForwardsSigning(t *testing.T) {
	v := vaulttest.Start(t)
	mount := v.PKI(t)
	c := newCluster(t, "eu", 2, belowVault(t, v, mount, "eu.example.org"))
	require.Contains(
		t, command(t, "vault", "check", "--config", filepath.Join(c.members[0].dir, "entente.hcl")),
		"-MEMBER-eu-1-WRAP wraps and unwraps",
	)
	first, second := c.members[0], c.members[1]
	activeAt := func(p *process) error {
		active := 0
		for _, a := range listAuthorities(t, first) {
			if a.GetMember() == p.id && a.GetState() == ententev1.AuthorityState_AUTHORITY_STATE_ACTIVE {
				active++
			}
		}
		if active < 2 {
			return fmt.Errorf("%s has %d active authorities", p.id, active)
		}
		return nil
	}
	eventually(t, "both members sign", func() error { return errors.Join(activeAt(first), activeAt(second)) })
	for _, p := range c.members {
		requireNoPrivateKeys(t, filepath.Join(p.dir, "data"))
	}
	own := map[string]bool{}
	for _, a := range listAuthorities(t, first) {
		own[a.GetId()] = a.GetMember() == second.id
	}

	v.Stop(t)
	second.stop()
	c.start(second)
	require.Contains(t, scrape(t, second), locked+"1\n")
	eventually(t, "the member logs why", func() error {
		const line = "cannot unlock the signing keys; other members sign until this member can"
		if !strings.Contains(second.logs(), line) {
			return errors.New("no line yet")
		}
		return nil
	})
	w := issue(t, second, "spiffe://eu.example.org/web")
	_, _, err := x509svid.Verify(w.svid.Certificates, w.bundle)
	require.NoError(t, err)
	by, err := issueToken(t, c, second)
	require.NoError(t, err)
	require.False(t, own[by], "the other member signed")

	v.Resume(t)
	eventually(t, "the member unlocks its keys by itself", func() error {
		if !strings.Contains(scrape(t, second), locked+"0\n") {
			return errors.New("they are locked")
		}
		return nil
	})
	by, err = issueToken(t, c, second)
	require.NoError(t, err)
	require.True(t, own[by], "it signs with the keys that it had")
	for _, a := range listAuthorities(t, first) {
		require.Nil(t, a.GetRetireTime(), "authority %s was retired by an outage", a.GetId())
	}
}

// TestKeysOnDiskAreEncrypted encrypts the keys of a member that had them in the clear.
func TestKeysOnDiskAreEncrypted(t *testing.T) {
	c := newCluster(t, "eu", 1, quick)
	p := c.members[0]
	before, err := issueToken(t, c, p)
	require.NoError(t, err)
	require.Contains(t, p.logs(), "the signing keys on disk are not encrypted")
	keys := filepath.Join(p.dir, "data", "keys")
	holdsPrivate := func() bool {
		for _, name := range files(t, keys) {
			raw, err := os.ReadFile(name)
			require.NoError(t, err)
			if strings.Contains(string(raw), "BEGIN PRIVATE KEY") {
				return true
			}
		}
		return false
	}
	require.True(t, holdsPrivate())
	p.stop()

	var key [32]byte
	_, _ = rand.Read(key[:])
	p.env = append(p.env, "ENTENTE_TEST_WRAP="+base64.StdEncoding.EncodeToString(key[:]))
	c.extra = quick + `
authority {
  keys "disk" {
    encryption "key" { key = "env:ENTENTE_TEST_WRAP" }
  }
}
`
	p.configure(c, "", "")
	c.start(p)
	require.False(t, holdsPrivate())
	after, err := issueToken(t, c, p)
	require.NoError(t, err)
	require.Equal(t, before, after, "the same keys sign")
	p.stop()

	// Without the key the member does not start, and its error names what is missing.
	p.env = nil
	p.run()
	<-p.ended()
	require.Contains(t, p.logs(), "the wrapping key of the signing keys, env:ENTENTE_TEST_WRAP: read secret "+
		"env:ENTENTE_TEST_WRAP: it is empty")
}

// files returns the paths of the files in a folder.
func files(t *testing.T, dir string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "*"))
	require.NoError(t, err)
	require.NotEmpty(t, found)
	return found
}
