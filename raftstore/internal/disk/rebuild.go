package disk

import (
	"errors"
	"fmt"
	"os"

	"github.com/ententehq/entente/raftstore/internal/logfile"
)

// Rebuilt is what a member begins with whose files were deleted by an order of the cluster.
type Rebuilt struct {
	// Order is the ID of that order.
	Order string
	// Incarnation is the last one whose commands the cluster has seen.
	Incarnation uint64
	// Term is the present Raft term. The member may have voted in it, and in those before, which it no longer knows.
	Term uint64
}

var orderKey = []byte("entente.repair")

const (
	// uncounted is more starts than a member can have made without the cluster having seen a command of it.
	uncounted = 1 << 20

	newSuffix = ".rebuilt"
	oldSuffix = ".deleted"
)

// Rebuild replaces all files in a folder by those of a member that has nothing and votes in no term that it may have
// voted in.
func Rebuild(dir string, with Rebuilt) error {
	if err := os.RemoveAll(dir + newSuffix); err != nil {
		return err
	}
	if err := os.MkdirAll(dir+newSuffix, 0o700); err != nil {
		return err
	}
	f, err := logfile.Open(dir + newSuffix)
	if err != nil {
		return err
	}
	err = errors.Join(
		// Raft's names for its term and its vote. No server has the name of the one voted for.
		f.SetUint64([]byte("CurrentTerm"), with.Term),
		f.SetUint64([]byte("LastVoteTerm"), with.Term),
		f.Set([]byte("LastVoteCand"), []byte("rebuilt")),
		f.SetUint64(incarnationKey, with.Incarnation+uncounted),
		f.Set(orderKey, []byte(with.Order)),
	)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(dir, dir+oldSuffix); err != nil {
		return err
	}
	return finishRebuild(dir)
}

// finishRebuild completes a rebuild that was interrupted between its last steps.
func finishRebuild(dir string) error {
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		if err := os.Rename(dir+newSuffix, dir); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("put the rebuilt files in place: %w", err)
		}
	}
	return errors.Join(os.RemoveAll(dir+oldSuffix), os.RemoveAll(dir+newSuffix))
}

// Order returns the ID of the order by which the files were deleted last; empty: they never were.
func (s *Store) Order() (string, error) {
	order, err := s.Stable.Get(orderKey)
	if err != nil && err.Error() != "not found" {
		return "", err
	}
	return string(order), nil
}
