package raftstore_test

import (
	"crypto/sha256"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/raftstore"
)

// storeMetrics counts the metrics of stores, without those of Raft.
func storeMetrics(t *testing.T, registry *prometheus.Registry) (n int) {
	t.Helper()
	families, err := registry.Gather()
	assert.NoError(t, err)
	for _, f := range families {
		if strings.HasPrefix(f.GetName(), "entente_raftstore_") {
			n++
		}
	}
	return n
}

// TestMetricsOfAnOpenStore: a store exports its metrics while it is open. One that cannot be opened leaves none, and a
// scrape while the files are opened meets none.
func TestMetricsOfAnOpenStore(t *testing.T) {
	dir, registry := t.TempDir(), prometheus.NewRegistry()
	config := raftstore.Config{
		MemberID: "m1", Identity: sha256.Sum256([]byte("m1")), Dir: filepath.Join(dir, "file"), Registerer: registry,
	}
	require.NoError(t, os.WriteFile(config.Dir, nil, 0o600))
	_, err := raftstore.Open(config)
	require.ErrorContains(t, err, "open the store: ")
	require.Zero(t, storeMetrics(t, registry), "the folder is a file")

	config.Dir = filepath.Join(dir, "store")
	during := -1 // the metrics of a scrape while the files are opened
	raftstore.WrapLog(&config, func(below raft.LogStore) raft.LogStore {
		during = storeMetrics(t, registry)
		return below
	})
	s, err := raftstore.Open(config)
	require.NoError(t, err)
	require.Zero(t, during)
	all := storeMetrics(t, registry)
	require.Positive(t, all)

	second := config
	second.Dir = filepath.Join(dir, "second")
	_, err = raftstore.Open(second)
	require.ErrorContains(t, err, "open the store: register the store's metrics: ")
	require.Equal(t, all, storeMetrics(t, registry), "the open store keeps its metrics")
	require.NoError(t, s.Close())
	require.Zero(t, storeMetrics(t, registry))

	s, err = raftstore.Open(second)
	require.NoError(t, err, "the refused store has closed its files")
	require.NoError(t, s.Close())
}
