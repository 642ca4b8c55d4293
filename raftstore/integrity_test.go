package raftstore_test

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/raftstoretest"
)

// TestDigests changes one bit in the memory of one of three members. From the next change of that row on, its digest is
// not that of the others.
func TestDigests(t *testing.T) {
	l := newLoopback(t)
	stores := l.form(t, []string{"m1", "m2", "m3"})
	put(t, stores[0], "k", "value")
	writePast := func(checkpoint uint64) {
		t.Helper()
		var writers sync.WaitGroup
		for w := range 8 {
			writers.Go(func() {
				for i := 0; uint64(stores[0].View().Revision()) <= checkpoint+1; i++ {
					put(t, stores[0], fmt.Sprintf("%d/%d", w, i%50), fmt.Sprint(i))
				}
			})
		}
		writers.Wait()
		for _, s := range stores {
			_, err := s.Read(t.Context(), raftstore.ReadOptions{MinRevision: stores[0].View().Revision()})
			require.NoError(t, err)
		}
	}
	latest := func(s *raftstore.Store) raftstore.Digest {
		all := raftstore.IntegrityOf(s).Digests()
		require.NotEmpty(t, all)
		return all[len(all)-1]
	}
	writePast(1024)
	require.Equal(t, uint64(1024), latest(stores[0]).Index)
	require.Equal(t, latest(stores[0]), latest(stores[1]))
	require.Equal(t, latest(stores[0]), latest(stores[2]))

	raftstoretest.Corrupt(t, stores[2], words.Name(), "k")
	put(t, stores[0], "k", "another value")
	writePast(2048)
	require.Equal(t, latest(stores[0]), latest(stores[1]))
	require.NotEqual(t, latest(stores[0]), latest(stores[2]))
}

// TestMemoryIsVerified changes one bit in the memory of a member. The next comparison of the memory with its digest
// raises an alarm.
func TestMemoryIsVerified(t *testing.T) {
	registry := prometheus.NewRegistry()
	var log bytes.Buffer
	s := raftstoretest.NewCluster(t, 1, func(_ int, c *raftstore.Config) {
		c.Registerer = registry
		c.Logger = hclog.New(&hclog.LoggerOptions{Output: &log, Level: hclog.Error})
	}).Store(0)
	put(t, s, "k", "value")
	mismatch := func() float64 {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		ticks, done := make(chan time.Time), make(chan struct{})
		go func() {
			defer close(done)
			raftstore.VerifyMemory(ctx, s, ticks)
		}()
		ticks <- time.Now()
		cancel() // the comparison that has begun is made
		<-done
		families, err := registry.Gather()
		require.NoError(t, err)
		for _, f := range families {
			if f.GetName() == "entente_raftstore_memory_mismatch" {
				return f.GetMetric()[0].GetGauge().GetValue()
			}
		}
		t.Fatal("there is no such metric")
		return 0
	}
	require.Zero(t, mismatch())
	require.Empty(t, log.String())
	raftstoretest.Corrupt(t, s, words.Name(), "k")
	require.InDelta(t, 1, mismatch(), 0)
	require.Contains(t, log.String(), "the state in memory does not match its digest: error=")
	require.Contains(t, log.String(), "this member's memory has changed by itself")
	require.InDelta(t, 1, mismatch(), 0, "it does not repair itself")
}

// TestDiverged stops a member by itself. It does not start again with the same files.
func TestDiverged(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "m1")
	stopped := make(chan error, 1)
	s, err := openAlone(dir, func(err error) { stopped <- err })
	require.NoError(t, err)
	raftstore.IntegrityOf(s).Diverged("at entry 1024 it differs from that of m2, m3")
	const remedy = "; run 'entente cluster repair m1' against another member, then start this one again: it is " +
		"rebuilt from the others and keeps its id and keys"
	select {
	case err = <-stopped:
	case <-t.Context().Done():
		err = context.Cause(t.Context())
	}
	require.EqualError(t, err,
		"the state of this member is damaged: at entry 1024 it differs from that of m2, m3"+remedy)
	require.NoError(t, s.Close())
	_, err = openAlone(dir, nil)
	require.EqualError(t, err, "open the store: the state in "+dir+" is damaged: \"at entry 1024 it differs from that "+
		"of m2, m3\""+remedy)
}
