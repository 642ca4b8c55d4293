package vaulttest

import (
	"testing"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"
)

// Transit mounts a Transit engine, and returns its path.
func (v *Vault) Transit(t testing.TB) string {
	t.Helper()
	path := Name("transit")
	require.NoError(t, v.Client(t).Sys().Mount(path, &api.MountInput{Type: "transit"}))
	return path
}

// TransitKeys are the names of all keys in a Transit mount.
func (v *Vault) TransitKeys(t testing.TB, mount string) []string {
	t.Helper()
	found, err := v.Client(t).Logical().ListWithContext(t.Context(), mount+"/keys")
	require.NoError(t, err)
	if found == nil {
		return nil
	}
	var names []string
	for _, name := range found.Data["keys"].([]any) {
		names = append(names, name.(string))
	}
	return names
}

// DeleteTransitKey deletes a key behind its owner's back.
func (v *Vault) DeleteTransitKey(t testing.TB, mount, name string) {
	t.Helper()
	v.Write(t, mount+"/keys/"+name+"/config", map[string]any{"deletion_allowed": true})
	_, err := v.Client(t).Logical().DeleteWithContext(t.Context(), mount+"/keys/"+name)
	require.NoError(t, err)
}
