package demo

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
)

func TestAbandonedFoldersAreRemoved(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	running, err := newFolder()
	require.NoError(t, err)
	killed, err := newFolder()
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(killed.path, "data"), nil, 0o600))
	require.NoError(t, killed.lock.Close(), "which is what the end of a process does")

	next, err := newFolder()
	require.NoError(t, err)
	require.NoDirExists(t, killed.path)
	require.DirExists(t, running.path, "the folder of a demo that runs was removed")
	running.remove()
	next.remove()
	left, err := os.ReadDir(os.TempDir())
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestReservedPortsDiffer(t *testing.T) {
	var one, two reservation
	t.Cleanup(one.release)
	t.Cleanup(two.release)
	seen := make(map[uint16]bool)
	for range 20 {
		for _, r := range []*reservation{&one, &two} {
			a, err := r.take()
			require.NoError(t, err)
			require.False(t, seen[a.Port()])
			require.True(t, a.Addr().IsLoopback())
			seen[a.Port()] = true
		}
	}
}

// What gets load comes first, whatever its priority.
func TestChoices(t *testing.T) {
	at := func(priority, load uint32, address string) *ententev1.HintPriority {
		return &ententev1.HintPriority{Priority: priority, Load: load, Localities: []*ententev1.HintLocality{{
			Locality:  &ententev1.Locality{Region: "eu", Zone: "a"},
			Endpoints: []*ententev1.HintEndpoint{{Address: address, SpiffeId: "spiffe://eu.example.org/shop"}},
		}}}
	}
	list, err := choices(
		&ententev1.Hint{Priorities: []*ententev1.HintPriority{at(0, 0, "one"), at(1, 100, "two"), {Priority: 2}}},
	)
	require.NoError(t, err)
	require.Len(t, list, 2)
	require.Equal(t, "two", list[0].address)
	require.Equal(t, "spiffe://eu.example.org/shop at one (eu/a)", list[1].String())
}
