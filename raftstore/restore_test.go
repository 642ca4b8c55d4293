package raftstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/feed"
	"github.com/ententehq/entente/raftstore/raftstoretest"
	"github.com/ententehq/entente/raftstore/snapshot"
)

func save(t testing.TB, s *raftstore.Store) []byte {
	t.Helper()
	var out bytes.Buffer
	_, err := s.Snapshots().Save(t.Context(), &out)
	require.NoError(t, err)
	return out.Bytes()
}

func restore(t testing.TB, s *raftstore.Store, saved []byte) raftstore.RestoreResult {
	t.Helper()
	result, err := s.Snapshots().Restore(t.Context(), bytes.NewReader(saved))
	require.NoError(t, err)
	return result
}

// content returns the rows of words as "key=value".
func content(t testing.TB, v *raftstore.View) []string {
	t.Helper()
	var all []string
	for row, err := range words.All(v, "") {
		require.NoError(t, err)
		all = append(all, row.Key+"="+row.Value.GetValue())
	}
	return all
}

func TestRestore(t *testing.T) {
	s := raftstoretest.New(t)
	put(t, s, "both", "then")
	put(t, s, "gone", "then")
	saved := save(t, s)
	put(t, s, "both", "now")
	put(t, s, "new", "now")
	remove(t, s, "gone")
	before := s.View()
	watch := s.Watch([]raftstore.Prefix{words.Prefix("")}, before.Revision())
	defer watch.Close()

	result := restore(t, s, saved)
	require.Greater(t, result.Revision, before.Revision(), "revisions never go back")
	require.Less(t, result.Snapshot.Revision, before.Revision())
	require.False(t, result.Adopted)
	v := s.View()
	require.Equal(t, []string{"both=then", "gone=then"}, content(t, v))
	require.Equal(t, []string{"both=now", "new=now"}, content(t, before), "a view never changes")
	for _, prefix := range []string{"", "both", "new", "gone"} {
		require.Equal(t, result.Revision, words.PrefixRevision(v, prefix))
	}
	row, _, err := words.Get(v, "both")
	require.NoError(t, err)
	require.Equal(t, result.Revision, row.Revision)
	_, err = watch.Next(t.Context())
	require.ErrorIs(t, err, raftstore.ErrWatchRestart)
	require.Zero(t, raftstore.Staged(s))

	require.Greater(t, put(t, s, "both", "later"), result.Revision, "life goes on")
	restore(t, s, saved)
	require.Equal(t, []string{"both=then", "gone=then"}, content(t, s.View()), "a snapshot can be restored again")
}

// A snapshot larger than any command goes through the log in chunks.
func TestRestoreLarge(t *testing.T) {
	s := raftstoretest.New(t)
	big := strings.Repeat("x", 400<<10)
	for i := range 5 {
		put(t, s, fmt.Sprintf("big/%d", i), big)
	}
	for i := range 500 {
		put(t, s, fmt.Sprintf("small/%03d", i), "x")
	}
	largest := strings.Repeat("y", 512<<10-1024-64)
	put(t, s, "largest", largest)
	want := content(t, s.View())
	saved := save(t, s)
	for _, row := range []string{"big/1", "small/007", "largest"} {
		remove(t, s, row)
	}
	restore(t, s, saved)
	require.Equal(t, want, content(t, s.View()))
}

// A follower of the state is called with the restored one.
func TestFollowSeesRestore(t *testing.T) {
	s := raftstoretest.New(t)
	put(t, s, "k", "then")
	saved := save(t, s)
	put(t, s, "k", "now")
	seen := make(chan string)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		defer close(seen)
		_ = feed.Latest(ctx, s, []raftstore.Prefix{words.Prefix("k")}, func(v *raftstore.View) error {
			row, _, err := words.Get(v, "k")
			select {
			case seen <- row.Value.GetValue():
			case <-ctx.Done():
			}
			return err
		})
	}()
	require.Equal(t, "now", <-seen)
	restore(t, s, saved)
	require.Equal(t, "then", <-seen)
}

func TestRestoreRejectsIncompleteSnapshot(t *testing.T) {
	s := raftstoretest.New(t)
	put(t, s, "k", "then")
	saved := save(t, s)
	put(t, s, "k", "now")
	before := s.View().Revision()
	altered := bytes.Clone(saved)
	altered[len(altered)-40] ^= 1
	for name, c := range map[string]struct {
		saved []byte
		want  error
	}{
		"cut off":    {saved[:len(saved)-1], snapshot.ErrDamaged},
		"altered":    {altered, snapshot.ErrDamaged},
		"not one":    {[]byte("PK\x03\x04"), snapshot.ErrNotSnapshot},
		"of another": {save(t, another(t)), raftstore.ErrOtherCluster},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := s.Snapshots().Restore(t.Context(), bytes.NewReader(c.saved))
			require.ErrorIs(t, err, c.want)
			require.Equal(t, before, s.View().Revision(), "nothing was written")
		})
	}
}

// another returns the store of another cluster, with one row.
func another(t *testing.T) *raftstore.Store {
	s := raftstoretest.New(t)
	put(t, s, "k", "elsewhere")
	return s
}

// A new cluster adopts the snapshot of one that was lost, and is that cluster from then on.
func TestEmptyClusterAdoptsSnapshot(t *testing.T) {
	lost := another(t)
	saved := save(t, lost)
	fresh := raftstoretest.New(t)
	fresh.Snapshots().CountAsEmpty(
		func(_ *raftstore.View, table, key string) bool { return table == other.Name() && key == "founder" },
	)
	_, err := fresh.Update(
		t.Context(),
		func(tx *raftstore.Tx) error { return other.Put(tx, "founder", wrapperspb.String("me")) },
	)
	require.NoError(t, err)
	require.NotEqual(t, lost.ClusterID(), fresh.ClusterID())

	result := restore(t, fresh, saved)
	require.True(t, result.Adopted)
	require.Equal(t, lost.ClusterID(), fresh.ClusterID())
	require.Equal(t, []string{"k=elsewhere"}, content(t, fresh.View()))

	restore(t, fresh, save(t, fresh)) // it is its own now
	_, err = fresh.Snapshots().Restore(t.Context(), bytes.NewReader(save(t, another(t))))
	require.ErrorIs(t, err, raftstore.ErrOtherCluster)
	require.ErrorContains(t, err, `which holds "k" in test_words`)
}

// A cluster that receives a write while it adopts a snapshot is no longer empty.
func TestAdoptionNoticesAWrite(t *testing.T) {
	fresh := raftstoretest.New(t)
	fresh.Snapshots().Survive("test", func(_, _ *raftstore.View, _ *raftstore.Tx) error {
		put(t, fresh, "k", "written meanwhile")
		return nil
	})
	_, err := fresh.Snapshots().Restore(t.Context(), bytes.NewReader(save(t, another(t))))
	require.ErrorIs(t, err, raftstore.ErrOtherCluster)
	require.Equal(t, []string{"k=written meanwhile"}, content(t, fresh.View()))
	require.Zero(t, raftstore.Staged(fresh))
}

// carryOver is the function of a room that keeps its row "own" over a restore, and raises "count" above both.
func carryOver(before, _ *raftstore.View, tx *raftstore.Tx) error {
	own, ok, err := words.Get(before, "own")
	if err != nil {
		return err
	}
	if ok {
		err = words.Put(tx, "own", own.Value)
	} else {
		err = words.Delete(tx, "own")
	}
	if err != nil {
		return err
	}
	now, _, err := words.Get(before, "count")
	if err != nil {
		return err
	}
	then, _, err := words.Get(tx, "count")
	if err != nil {
		return err
	}
	return words.Put(tx, "count", wrapperspb.String(max(now.Value.GetValue(), then.Value.GetValue())+"+"))
}

func TestSurviveRestore(t *testing.T) {
	s := raftstoretest.New(t)
	s.Snapshots().Survive("test", carryOver)
	put(t, s, "count", "3")
	put(t, s, "else", "then")
	without := save(t, s)
	put(t, s, "own", "then")
	put(t, s, "count", "5")
	with := save(t, s)
	put(t, s, "own", "now")
	put(t, s, "else", "now")

	restore(t, s, without)
	require.Equal(t, []string{"count=5+", "else=then", "own=now"}, content(t, s.View()))
	restore(t, s, with)
	require.Equal(t, []string{"count=5++", "else=then", "own=now"}, content(t, s.View()))
	remove(t, s, "own")
	restore(t, s, with)
	require.Equal(t, []string{"count=5+++", "else=then"}, content(t, s.View()), "what was deleted since stays deleted")
}

// What a room carries over is never older than the entry that swaps: whatever is written to its table between its
// looking and the swap has it look again.
func TestSurviveRestoreSeesLateWrites(t *testing.T) {
	s := raftstoretest.New(t)
	put(t, s, "own", "0")
	saved := save(t, s)
	calls := 0
	s.Snapshots().Survive("test", func(before, _ *raftstore.View, tx *raftstore.Tx) error {
		row, _, err := words.Get(before, "own")
		if err != nil {
			return err
		}
		if calls++; calls <= 3 {
			put(t, s, "own", fmt.Sprint(calls))
		}
		_, err = s.Update(
			t.Context(),
			func(tx *raftstore.Tx) error { return other.Put(tx, "unrelated", wrapperspb.String(fmt.Sprint(calls))) },
		)
		return errors.Join(err, words.Put(tx, "own", row.Value))
	})
	restore(t, s, saved)
	require.Equal(t, []string{"own=3"}, content(t, s.View()))
	require.Equal(t, 4, calls, "writes to tables that it did not look at do not matter")
}

func TestRestoreGivesUpOnEndlessWrites(t *testing.T) {
	s := raftstoretest.New(t)
	put(t, s, "own", "0")
	saved := save(t, s)
	calls := 0
	s.Snapshots().Survive("test", func(before, _ *raftstore.View, _ *raftstore.Tx) error {
		calls++
		put(t, s, "own", fmt.Sprint(calls))
		_, err := words.List(before, "")
		return err
	})
	_, err := s.Snapshots().Restore(t.Context(), bytes.NewReader(saved))
	require.ErrorIs(t, err, raftstore.ErrBusy)
	require.Equal(t, []string{fmt.Sprintf("own=%d", calls)}, content(t, s.View()))
	require.Zero(t, raftstore.Staged(s))
}

func TestFailedRestoreLeavesNoTrace(t *testing.T) {
	s := raftstoretest.New(t)
	put(t, s, "k", "then")
	saved := save(t, s)
	put(t, s, "k", "now")
	var ctx context.Context
	refuse := errors.New("a room refuses")
	var hook func() error
	s.Snapshots().Survive("test", func(_, _ *raftstore.View, tx *raftstore.Tx) error {
		require.NotZero(t, raftstore.Staged(s))
		return errors.Join(words.Put(tx, "k", wrapperspb.String("carried")), hook())
	})
	for name, c := range map[string]struct {
		hook func(cancel context.CancelFunc) error
		want error
	}{
		"a room refuses":  {func(context.CancelFunc) error { return refuse }, refuse},
		"it is cancelled": {func(cancel context.CancelFunc) error { cancel(); return nil }, context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			var cancel context.CancelFunc
			ctx, cancel = context.WithCancel(t.Context())
			defer cancel()
			hook = func() error { return c.hook(cancel) }
			_, err := s.Snapshots().Restore(ctx, bytes.NewReader(saved))
			require.ErrorIs(t, err, c.want)
			require.Equal(t, []string{"k=now"}, content(t, s.View()))
			require.Zero(t, raftstore.Staged(s))
		})
	}
}

// Of two restores at the same time the one that began later wins, and the other returns an error.
func TestRestoreSuperseded(t *testing.T) {
	s := raftstoretest.New(t)
	put(t, s, "k", "first")
	first := save(t, s)
	put(t, s, "k", "second")
	second := save(t, s)
	once := false
	s.Snapshots().Survive("test", func(_, _ *raftstore.View, _ *raftstore.Tx) error {
		if !once {
			once = true
			restore(t, s, second)
		}
		return nil
	})
	_, err := s.Snapshots().Restore(t.Context(), bytes.NewReader(first))
	require.ErrorIs(t, err, raftstore.ErrRestoreSuperseded)
	require.Equal(t, []string{"k=second"}, content(t, s.View()))
	require.Zero(t, raftstore.Staged(s))
}

func TestSaveSnapshotStopsWithItsContext(t *testing.T) {
	s := raftstoretest.New(t)
	for i := range 8 {
		put(t, s, fmt.Sprint(i), strings.Repeat("x", 100<<10))
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err := s.Snapshots().Save(ctx, writerFunc(func(p []byte) (int, error) { cancel(); return len(p), nil }))
	require.ErrorIs(t, err, context.Canceled)
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
