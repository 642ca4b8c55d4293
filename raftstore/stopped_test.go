package raftstore_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/internal/logfile"
	"github.com/ententehq/entente/raftstore/raftstoretest"
)

// appendUncommitted appends an entry to the log of a stopped member, as a leader that is gone may have sent it.
func appendUncommitted(t *testing.T, dir, key, value string) {
	t.Helper()
	f, err := logfile.Open(dir)
	require.NoError(t, err)
	last, err := f.LastIndex()
	require.NoError(t, err)
	var l raft.Log
	require.NoError(t, f.GetLog(last, &l))
	content, err := proto.Marshal(wrapperspb.String(value))
	require.NoError(t, err)
	entry, err := proto.Marshal(&statev1.Entry{Version: 1, Commands: []*statev1.Command{{
		Id: &statev1.CommandID{Member: "gone", Incarnation: 1, Counter: 1},
		Kind: &statev1.Command_Transaction{Transaction: &statev1.Transaction{
			Changes: []*statev1.RowChange{{Table: words.Name(), Key: key, Value: content}},
		}},
	}}})
	require.NoError(t, err)
	require.NoError(t, f.StoreLog(&raft.Log{Index: last + 1, Term: l.Term, Type: raft.LogCommand, Data: entry}))
	require.NoError(t, f.Close())
}

func openStopped(t *testing.T, id, dir string) *raftstore.Stopped {
	t.Helper()
	s, err := raftstore.OpenStopped(raftstore.Config{
		MemberID: id, Identity: sha256.Sum256([]byte(id)), Address: id, Dir: dir,
	})
	require.NoError(t, err)
	return s
}

func recoverWith(s *raftstore.Stopped, key, value string) (raftstore.Revision, error) {
	return s.Recover(func(tx *raftstore.Tx) error { return words.Put(tx, key, wrapperspb.String(value)) })
}

// A stopped member of three becomes a cluster of one with all that it has: the snapshot, the committed entries and
// those that are not. Nothing older is visible. A recovery can be repeated, after a crash too.
func TestRecoverStopped(t *testing.T) {
	for name, prepare := range map[string]func(t *testing.T, s *raftstore.Store){
		"a log": func(*testing.T, *raftstore.Store) {},
		"a snapshot and a log": func(t *testing.T, s *raftstore.Store) {
			require.NoError(t, raftstore.Snapshot(s))
			put(t, s, "later", "1")
		},
		"a snapshot alone": func(t *testing.T, s *raftstore.Store) {
			_, _, err := raftstore.Compact(s)
			require.NoError(t, err)
		},
	} {
		t.Run(name, func(t *testing.T) {
			var dir string
			c := raftstoretest.NewCluster(t, 3, func(i int, c *raftstore.Config) {
				if i == 1 {
					dir = c.Dir
				}
			})
			for i := range 20 {
				put(t, c.Store(1), fmt.Sprint("k/", i), "v")
			}
			prepare(t, c.Store(1))
			c.AwaitCaughtUp()
			published := c.Store(1).View().Revision()
			clusterID := c.Store(1).ClusterID()
			for i := range 3 {
				c.Kill(i)
			}
			appendUncommitted(t, dir, "uncommitted", "u")

			s := openStopped(t, "member-2", dir)
			require.True(t, s.Member())
			others, err := s.Others()
			require.NoError(t, err)
			require.Len(t, others, 2)
			require.Equal(t, "member-1", others[0].MemberID)
			last, err := s.LastIndex()
			require.NoError(t, err)
			require.Greater(t, last, published)
			require.False(t, s.Written().IsZero() && name != "a snapshot alone")
			row, found, err := words.Get(s.View(), "uncommitted")
			require.NoError(t, err)
			require.True(t, found)
			require.Equal(t, "u", row.Value.GetValue())
			_, err = s.Recover(func(*raftstore.Tx) error { return errors.New("not now") })
			require.EqualError(t, err, "not now")
			index, err := recoverWith(s, "recovered", "1")
			require.NoError(t, err)
			require.Equal(t, last+2, index)

			// A crash after the write: the files are as they are on disk now.
			crashed := filepath.Join(t.TempDir(), "crashed")
			require.NoError(t, os.CopyFS(crashed, os.DirFS(dir)))
			require.NoError(t, s.Close())
			s = openStopped(t, "member-2", crashed)
			others, err = s.Others()
			require.NoError(t, err)
			require.Empty(t, others)
			_, err = recoverWith(s, "recovered", "2")
			require.NoError(t, err)
			require.NoError(t, s.Close())
			require.NoError(t, os.RemoveAll(dir))
			require.NoError(t, os.CopyFS(dir, os.DirFS(crashed)))

			alone := c.Restart(1)
			require.NoError(t, alone.Serving().AwaitLoaded(t.Context()))
			require.Equal(t, "u", value(t, alone, "uncommitted"), "nothing older is visible")
			require.Equal(t, "2", value(t, alone, "recovered"))
			require.NoError(t, alone.Serving().Await(t.Context()))
			raftstoretest.AwaitLeadership(t, alone)
			put(t, alone, "after", "1")
			require.Equal(t, clusterID, alone.ClusterID())
			for i := range 20 {
				require.Equal(t, "v", value(t, alone, fmt.Sprint("k/", i)))
			}
			require.Len(t, alone.Servers().List(), 1)

			// It is a cluster like any other: it takes snapshots and restarts.
			require.NoError(t, raftstore.Snapshot(alone))
			c.Kill(1)
			alone = c.Restart(1)
			raftstoretest.AwaitLeadership(t, alone)
			require.Equal(t, "1", value(t, alone, "after"))
		})
	}
}

func TestNoStoppedMember(t *testing.T) {
	dir := t.TempDir()
	config := raftstore.Config{MemberID: "m1", Identity: sha256.Sum256([]byte("m1")), Dir: dir}
	_, err := raftstore.OpenStopped(config)
	require.EqualError(t, err, dir+" has no state of a member: there is no log.db")
	empty, err := openAlone(dir, nil)
	require.NoError(t, err)
	require.NoError(t, empty.Close())
	_, err = raftstore.OpenStopped(config)
	require.EqualError(t, err, "read the state of the stopped member m1: it belongs to no cluster yet: the log ends "+
		"at 0")
}

// A member that the cluster was recovered without stops, and does not start again.
func TestAbandonedMember(t *testing.T) {
	dir := t.TempDir()
	failed := make(chan error, 1)
	s, err := openAlone(dir, func(err error) { failed <- err })
	require.NoError(t, err)
	raftstore.IntegrityOf(s).Abandon("member m2 refuses it")
	const remedy = "; to return, empty the data folder and join the cluster with a new token"
	err = <-failed
	require.ErrorIs(t, err, raftstore.ErrAbandoned)
	require.EqualError(t, err, "member stopped: the data folder is abandoned, because the cluster was recovered "+
		"without this member: member m2 refuses it"+remedy)
	require.NoError(t, s.Close())
	_, err = openAlone(dir, nil)
	require.EqualError(t, err, "open the store: the state in "+dir+" is abandoned, because the cluster was recovered "+
		`without this member: "member m2 refuses it"`+remedy)
	require.NotErrorIs(t, err, raftstore.ErrDamaged)
}
