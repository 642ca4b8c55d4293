package transit

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/authority/keys"
	"github.com/ententehq/entente/vaultca/vault"
	"github.com/ententehq/entente/vaultca/vaulttest"
)

// TestWrappingKeyInVault rotates and deletes the wrapping key of a folder in a Vault, with the rights that the policy
// has and no more. A member that runs signs through all of that, and has its data key wrapped again; one that starts
// needs the version that wrapped it last.
func TestWrappingKeyInVault(t *testing.T) {
	v := vaulttest.Shared(t)
	mount := v.Transit(t)
	c := transitFor(t, v, mount, "eu-1")
	rules := policyText(PolicyFor{Mount: mount, Cluster: "eu", Member: "eu-1", Wrapping: true})
	auth, roleID, secretID := v.AppRole(t, v.Policy(t, rules), nil)
	c.Vault.Auth = vault.AppRole{Mount: auth, RoleID: secretText(roleID), SecretID: secretText(secretID)}
	w, err := OpenWrapper(c, nil)
	require.NoError(t, err)
	t.Cleanup(w.caller.Close)
	dir := filepath.Join(t.TempDir(), "keys")
	opened := func() *keys.Folder {
		t.Helper()
		f, err := keys.OpenEncryptedFolder(dir, keys.Encryption{
			Domain: "eu.example.org", Member: "eu-1", Wrappers: []keys.Wrapper{w},
		})
		require.NoError(t, err)
		return f
	}
	wrapped := func() string {
		t.Helper()
		content, err := os.ReadFile(filepath.Join(dir, "data-key.json"))
		require.NoError(t, err)
		return string(content)
	}
	path := mount + "/keys/" + w.key()

	running := opened()
	require.NoError(t, running.Unlock(t.Context()))
	key, err := running.Create(t.Context(), "a")
	require.NoError(t, err)
	restarted := func() error {
		t.Helper()
		f := opened()
		if err := f.Unlock(t.Context()); err != nil {
			signer, signerErr := f.Signer("a")
			require.NoError(t, signerErr, "its public half is known")
			refuses(t, signer, keys.ErrLocked)
			return err
		}
		signer, err := f.Signer("a")
		require.NoError(t, err)
		require.Equal(t, key.Public(), signer.Public())
		signsDigest(t, signer)
		return nil
	}

	v.Write(t, path+"/rotate", nil)
	before := wrapped()
	require.NoError(t, restarted(), "the earlier version unwraps")
	require.NotEqual(t, before, wrapped())
	v.Write(t, path+"/config", map[string]any{"min_decryption_version": 2})
	require.NoError(t, restarted(), "it was wrapped with the newest version when the member started")

	v.Write(t, path+"/rotate", nil)
	v.Write(t, path+"/config", map[string]any{"min_decryption_version": 3})
	err = restarted()
	require.ErrorIs(t, err, keys.ErrLocked, "the version that wrapped it last is out of use")
	require.ErrorIs(t, err, vault.ErrRejected)
	signsDigest(t, key)
	require.NoError(t, running.Unlock(t.Context()), "as a member that runs does once a day")
	require.NoError(t, restarted())

	v.DeleteTransitKey(t, mount, w.key())
	err = restarted()
	require.ErrorIs(t, err, keys.ErrLocked)
	require.NotContains(t, v.TransitKeys(t, mount), w.key(), "a member that starts makes no key in place of a lost one")
	signsDigest(t, key)
	require.NoError(t, running.Unlock(t.Context()), "one that runs has the data key, and makes another wrapping key")
	require.NoError(t, restarted())
}
