package recovery

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/internal/sealed"
)

// TestSeen keeps the highest sequence of each domain over restarts, and believes no peer that it is absurdly high.
func TestSeen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "seen")
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		highest := uint64(now.AddDate(1, 0, 0).UnixMilli()) //nolint:gosec // after 1970
		for _, run := range []struct {
			record func(s *Seen)
			want   map[string]uint64
			by     string // the peer with the highest
		}{
			{func(*Seen) {}, map[string]uint64{}, ""},
			{func(s *Seen) {
				s.Record("us.test", "eu.test", 9, now)
				s.Record("ap.test", "eu.test", 8, now)
				s.Record("ap.test", "pay.test", 3, now)
			}, map[string]uint64{"eu.test": 9, "pay.test": 3}, "us.test"},
			{func(s *Seen) {
				s.Record("ap.test", "eu.test", 1<<53, now)
				s.Record("ap.test", "pay.test", highest, now)
			}, map[string]uint64{"eu.test": 9, "pay.test": highest}, "ap.test"},
			{func(s *Seen) { s.Record("us.test", "eu.test", 9, now) },
				map[string]uint64{"eu.test": 9, "pay.test": highest}, "ap.test"},
		} {
			s := NewSeen(path, hclog.NewNullLogger())
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- s.Run(ctx) }()
			run.record(s)
			synctest.Wait()
			cancel()
			require.NoError(t, <-ended)
			rows, err := readSeen(path)
			require.NoError(t, err)
			got := map[string]uint64{}
			for _, row := range rows {
				got[row.GetTrustDomain()] = row.GetSequence()
			}
			require.Equal(t, run.want, got)
			if len(rows) > 0 {
				require.Equal(t, run.by, rows[0].GetPeer())
			}
		}
	})
	require.NoError(t, os.Truncate(path, 10))
	_, err := readSeen(path)
	require.ErrorIs(t, err, sealed.ErrDamaged)
	require.EqualError(t, err, "read what peers have seen from "+path+": its checksum does not match")
	require.Empty(t, NewSeen(path, hclog.NewNullLogger()).byDomain)
}
