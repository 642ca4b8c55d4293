package issue

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/authority/keys"
	"github.com/ententehq/entente/authority/svid"
)

// TestSampledLeaves: one leaf in so many is checked, by a goroutine for which no signature waits.
func TestSampledLeaves(t *testing.T) {
	start := time.Now()
	registry := prometheus.NewRegistry()
	s, err := NewLinter(3, hclog.NewNullLogger(), registry)
	require.NoError(t, err)
	key, err := keys.Generate()
	require.NoError(t, err)
	ca := certificateAuthority(t, key, start)
	r := workloadRequest(t)
	template, err := svid.NewLeaf(r.ID, r.SPKI, nil, start, time.Minute, ca)
	require.NoError(t, err)
	leaf, err := template.Sign(ca, key, svid.LintLeaf(r.ID, ca))
	require.NoError(t, err)
	for range 3 * (lintBacklog + 2) {
		s.Leaf(leaf)
	}
	require.Len(t, s.backlog, lintBacklog)
	require.Equal(t, 2.0, testutil.ToFloat64(s.checked.WithLabelValues("leaf", "skipped")), "Leaf blocked")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- s.Run(ctx) }()
	require.Eventually(t, func() bool {
		return testutil.ToFloat64(s.checked.WithLabelValues("leaf", "clean")) == lintBacklog
	}, 30*time.Second, time.Millisecond)
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)

	off, err := NewLinter(-1, hclog.NewNullLogger(), nil)
	require.NoError(t, err)
	off.Leaf(leaf)
	require.Empty(t, off.backlog)
	found, err := findingsOf(append(bytes.Clone(leaf), 0))
	require.NoError(t, err)
	require.Len(t, found, 1)
	require.Contains(t, found[0].String(), "unparsable: ")
}
