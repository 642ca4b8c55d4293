package agent_test

import (
	"context"
	"crypto/rand"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/agent"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/client"
	"github.com/ententehq/entente/node/nodetest"
)

// cacheKey makes the key of a cache.
func cacheKey(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "cache.key")
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	require.NoError(t, os.WriteFile(path, key, 0o600))
	return path
}

// waits runs an agent until it logs a text, without having served anything.
func (r *running) waits(t *testing.T, text string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r.log, r.ended = &syncBuffer{}, make(chan error, 1)
	started := make(chan struct{})
	go func() {
		r.ended <- agent.Run(ctx, r.cfg, agent.Options{LogOutput: r.log, Started: func() { close(started) }})
	}()
	eventually(t, text, func() bool { return strings.Contains(r.log.String(), text) })
	select {
	case <-started:
		require.Fail(t, "the agent serves", r.log.String())
	default:
	}
	cancel()
	require.NoError(t, <-r.ended)
}

// TestRestartInAnOutage restarts an agent while no member runs: workloads have the same SVID as before, and nobody has
// it by the data folder alone.
func TestRestartInAnOutage(t *testing.T) {
	m, err := nodetest.Start()
	require.NoError(t, err)
	closed := false
	t.Cleanup(func() {
		if !closed {
			_ = m.Close()
		}
	})
	c, err := client.New(t.Context(), client.WithAdminSocket(m.Socket))
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	r := configured(t, token(t, c, "node-1"))
	r.cfg.CacheKeyFile = cacheKey(t)
	entry(t, c, &ententev1.Entry{Agent: "node-1", SpiffeId: "spiffe://" + home + "/web", Selectors: []string{own()}})
	r.start(t)
	serial := func() string {
		source, err := workloadapi.NewX509Source(context1(t), workloadapi.WithClientOptions(r.address()))
		require.NoError(t, err)
		defer source.Close()
		svid, err := source.GetX509SVID()
		require.NoError(t, err)
		handshake(t, source)
		return svid.Certificates[0].SerialNumber.String()
	}
	before := serial()
	r.end(t)
	closed = true
	require.NoError(t, m.Close())

	r.start(t)
	require.Equal(t, before, serial())
	h, err := agent.ReadHealth(context1(t), r.cfg.AdminSocket)
	require.NoError(t, err)
	require.True(t, h.Ready, h.Reason)
	require.Equal(t, 1, h.SVIDs)
	r.end(t)

	sealed := filepath.Join(r.cfg.DataDir, "cache.sealed")
	content, err := os.ReadFile(sealed)
	require.NoError(t, err)
	require.NotContains(t, string(content), home)
	key := r.cfg.CacheKeyFile
	r.cfg.CacheKeyFile = cacheKey(t)
	r.waits(t, "is of another key or another agent, or it was changed")
	r.cfg.CacheKeyFile = key
	content[len(content)-1]++
	require.NoError(t, os.WriteFile(sealed, content, 0o600))
	r.waits(t, "is of another key or another agent, or it was changed")
	content[len(content)-1]--
	require.NoError(t, os.WriteFile(sealed, content, 0o600))
	r.start(t)
	require.Equal(t, before, serial(), "it was left as it was")
	r.end(t)
	r.cfg.CacheKeyFile = ""
	r.waits(t, "could not attest at this member yet")
}

// TestBannedAgentsStoreNothing tests that the stored cache of an agent that is banned is deleted.
func TestBannedAgentsStoreNothing(t *testing.T) {
	_, c := cluster(t)
	r := configured(t, token(t, c, "node-1"))
	r.cfg.CacheKeyFile = cacheKey(t)
	entry(t, c, &ententev1.Entry{Agent: "node-1", SpiffeId: "spiffe://" + home + "/web", Selectors: []string{own()}})
	r.start(t)
	sealed := filepath.Join(r.cfg.DataDir, "cache.sealed")
	eventually(t, "a stored cache", func() bool {
		_, err := os.Stat(sealed)
		return err == nil
	})
	_, err := c.Agents().BanAgent(context1(t), &ententev1.BanAgentRequest{Name: "node-1"})
	require.NoError(t, err)
	r.refused(t)
	r.end(t)
	require.NoFileExists(t, sealed)
}

func TestCacheKeys(t *testing.T) {
	_, c := cluster(t)
	r := configured(t, token(t, c, "node-1"))
	require.NoError(t, os.MkdirAll(r.cfg.DataDir, 0o700))
	write := func(path string, content []byte, mode os.FileMode) string {
		require.NoError(t, os.WriteFile(path, content, mode))
		return path
	}
	inside := write(filepath.Join(r.cfg.DataDir, "key"), make([]byte, 32), 0o600)
	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(inside, link))
	for text, path := range map[string]string{
		"is in data_dir: who copies": inside, "who copies that folder would": link,
		"has mode 644": write(filepath.Join(t.TempDir(), "key"), make([]byte, 32), 0o644), //nolint:gosec // wrong
		"has 16 bytes": write(filepath.Join(t.TempDir(), "key"), make([]byte, 16), 0o600),
		"no such file": filepath.Join(t.TempDir(), "none"),
	} {
		r.cfg.CacheKeyFile = path
		require.ErrorContains(t, agent.Run(context1(t), r.cfg, agent.Options{LogOutput: io.Discard}), text)
	}
}
