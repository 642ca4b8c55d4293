package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"filippo.io/age"
	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/ententehq/entente/raftstore/raftstoretest"
	"github.com/ententehq/entente/raftstore/snapshot"
)

// taken returns a save of a store's snapshot, which can be repeated without the store.
func taken(t *testing.T) func(context.Context, io.Writer) (snapshot.Info, error) {
	t.Helper()
	var content bytes.Buffer
	info, err := raftstoretest.New(t).Snapshots().Save(t.Context(), &content)
	require.NoError(t, err)
	return func(_ context.Context, w io.Writer) (snapshot.Info, error) {
		_, err := w.Write(content.Bytes())
		return info, err
	}
}

func schedule(t *testing.T, change func(*Config)) *Schedule {
	t.Helper()
	c := Config{
		Dir: filepath.Join(t.TempDir(), "backups"), Every: time.Hour, Keep: 3, Cluster: "eu", Member: "eu-1",
		Logger: hclog.NewNullLogger(),
	}
	change(&c)
	s, err := New(c)
	require.NoError(t, err)
	return s
}

// names returns the files in the folder of a schedule.
func (s *Schedule) names(t *testing.T) (out []string) {
	t.Helper()
	entries, err := os.ReadDir(s.Dir)
	require.NoError(t, err)
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

// TestSchedule: a snapshot an interval, the newest kept, those of others left alone, and what a killed member left
// removed.
func TestSchedule(t *testing.T) {
	save := taken(t)
	synctest.Test(t, func(t *testing.T) {
		s := schedule(t, func(c *Config) { c.Save = save })
		require.NoError(t, os.MkdirAll(s.Dir, 0o700))
		others := []string{
			"eu-2@eu-20000101T000000Z.snapshot", "eu-1@us-20000101T000000Z.snapshot", "eu-1@eu-notes.snapshot",
			"state.snap",
		}
		for _, name := range append(others, ".eu-1@eu-left") {
			require.NoError(t, os.WriteFile(filepath.Join(s.Dir, name), []byte("x"), 0o600))
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		synctest.Wait()
		require.Len(t, s.names(t), len(others)+1, "the first one at once")
		require.InDelta(t, 1, testutil.ToFloat64(s.saves.WithLabelValues("ok")), 0)
		require.InDelta(t, float64(time.Now().Unix()), testutil.ToFloat64(s.last), 0)
		require.Positive(t, testutil.ToFloat64(s.bytes))
		<-time.After(10 * time.Hour)
		synctest.Wait()
		names := s.names(t)
		require.Len(t, names, len(others)+3)
		for _, name := range others {
			require.Contains(t, names, name)
		}
		require.InDelta(t, 10, testutil.ToFloat64(s.saves.WithLabelValues("ok")), 1)
		cancel()
		require.NoError(t, <-done)

		// After a restart the next one is due an interval after the newest.
		again := schedule(t, func(c *Config) { c.Save, c.Dir = save, s.Dir })
		require.Greater(t, again.first(), time.Duration(0))
		require.InDelta(t, testutil.ToFloat64(s.last), testutil.ToFloat64(again.last), 0)
	})
}

// TestClockThatWasAhead: a snapshot with a time in the future delays none, is no success, and is the first to go.
func TestClockThatWasAhead(t *testing.T) {
	save := taken(t)
	for _, keep := range []int{1, 3} {
		synctest.Test(t, func(t *testing.T) {
			s := schedule(t, func(c *Config) { c.Save, c.Keep = save, keep })
			require.NoError(t, os.MkdirAll(s.Dir, 0o700))
			const ahead = "eu-1@eu-20360101T000000Z.snapshot"
			require.NoError(t, os.WriteFile(filepath.Join(s.Dir, ahead), []byte("x"), 0o600))
			require.Zero(t, s.first())
			require.Zero(t, testutil.ToFloat64(s.last))
			for range keep {
				require.NoError(t, s.save(t.Context()))
				<-time.After(time.Hour)
			}
			names := s.names(t)
			require.Len(t, names, keep)
			require.NotContains(t, names, ahead)
			require.Positive(t, s.first()+time.Second)
		})
	}
}

// TestFailuresLoseNothing: a snapshot that cannot be saved or is damaged is counted and tried again, and no older one
// is removed for it.
func TestFailuresLoseNothing(t *testing.T) {
	save := taken(t)
	type (
		saving func(context.Context, io.Writer) (snapshot.Info, error)
		to     = io.Writer
		of     = snapshot.Info
	)
	for reason, failing := range map[string]saving{
		"no leader": func(context.Context, to) (of, error) {
			return of{}, errors.New("no leader")
		},
		"is not valid: the snapshot is damaged": func(ctx context.Context, w to) (of, error) {
			var b bytes.Buffer
			info, err := save(ctx, &b)
			_, _ = w.Write(b.Bytes()[:b.Len()/2])
			return info, err
		},
		"the snapshot that was written is not valid": func(ctx context.Context, w to) (of, error) {
			var b bytes.Buffer
			info, err := save(ctx, &b)
			b.Bytes()[b.Len()/2] ^= 1
			_, _ = w.Write(b.Bytes())
			return info, err
		},
		"the snapshot has another checksum than was written": func(ctx context.Context, w to) (of, error) {
			info, err := save(ctx, w)
			info.SHA256[0] ^= 1
			return info, err
		},
	} {
		t.Run(reason, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				broken := false
				s := schedule(t, func(c *Config) {
					c.Keep = 1
					c.Save = func(ctx context.Context, w io.Writer) (snapshot.Info, error) {
						if broken {
							return failing(ctx, w)
						}
						return save(ctx, w)
					}
				})
				require.NoError(t, s.save(t.Context()))
				before := s.names(t)
				broken = true
				require.ErrorContains(t, s.save(t.Context()), reason)
				require.Equal(t, before, s.names(t))
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() { done <- s.Run(ctx) }()
				<-time.After(2 * time.Hour)
				synctest.Wait()
				require.Greater(t, testutil.ToFloat64(s.saves.WithLabelValues("failed")), 2.0)
				require.Equal(t, before, s.names(t))
				cancel()
				require.NoError(t, <-done)
			})
		})
	}
}

// TestEncrypted: only the holder of an identity reads an encrypted snapshot, and every reader finds a changed byte.
func TestEncrypted(t *testing.T) {
	identity, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	stranger, err := age.GenerateX25519Identity()
	require.NoError(t, err)
	recipients, err := ParseRecipients([]string{identity.Recipient().String()})
	require.NoError(t, err)
	s := schedule(t, func(c *Config) { c.Save, c.Recipients = taken(t), recipients })
	require.NoError(t, s.save(t.Context()))
	name := s.names(t)[0]
	require.True(t, strings.HasSuffix(name, ".snapshot.age"), name)
	file := filepath.Join(s.Dir, name)
	info, err := os.Stat(file)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	content, err := os.ReadFile(file)
	require.NoError(t, err)

	read := func(content []byte, identities ...age.Identity) error {
		r, err := Reader(bytes.NewReader(content), identities)
		if err != nil {
			return err
		}
		_, err = snapshot.Inspect(r)
		return err
	}
	require.NoError(t, read(content, stranger, identity))
	require.ErrorIs(t, read(content), ErrNoIdentity)
	require.ErrorContains(t, read(content, stranger), "decrypt the snapshot")
	for _, at := range []int{30, len(content) / 2, len(content) - 1} {
		changed := bytes.Clone(content)
		changed[at] ^= 1
		require.Error(t, read(changed, identity), "byte %d", at)
	}
	require.Error(t, read(content[:len(content)-1], identity))
}

func TestRecipients(t *testing.T) {
	for _, text := range []string{"", "age1", "AGE-SECRET-KEY-1", "ssh-ed25519 AAAA", "age1a\nage1b"} {
		_, err := ParseRecipients([]string{text})
		require.ErrorContains(t, err, fmt.Sprintf("%q is no age recipient", text))
	}
	none, err := ParseRecipients(nil)
	require.NoError(t, err)
	require.Empty(t, none)
	file := filepath.Join(t.TempDir(), "key.txt")
	require.NoError(t, os.WriteFile(file, []byte("no key"), 0o600))
	_, err = ReadIdentities(file)
	require.ErrorContains(t, err, "holds no age identities")
}
