package exchange

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/routing/registry"
)

// restore keeps the restore of a snapshot from sharing again what was withdrawn after the snapshot.
type restore struct{ agreements Agreements }

// keepEnded compares exports and imports before and after a restore. Under an agreement that existed before the
// restore, those that had ended stay ended, and those that were changed stay as they were.
func (s restore) keepEnded(before, restored *raftstore.View, tx *raftstore.Tx) error {
	// Without the agreement before the restore there is nothing to keep: the cluster may be a new one.
	existed := func(domain string, agreed *timestamppb.Timestamp) (bool, error) {
		a, found, err := s.agreements.With(before, domain)
		return found && a.Since.Equal(agreed.AsTime()), err
	}
	for row, err := range exportTable.All(restored, "") {
		if err != nil {
			return err
		}
		e, err := exportFromRow(row)
		if err != nil {
			return err
		}
		keep, err := existed(e.To, row.Value.GetAgreed())
		if err == nil && keep {
			err = putBefore(exportTable, before, tx, row)
		}
		if err != nil {
			return err
		}
	}
	for row, err := range registry.Imports.All(restored, "") {
		if err != nil {
			return err
		}
		i, err := importFromRow(row)
		if err != nil {
			return err
		}
		keep, err := existed(i.From, row.Value.GetAgreed())
		if err == nil && keep {
			err = putBefore(registry.Imports, before, tx, row)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// putBefore replaces a restored row by the one before the restore, or deletes it if there was none.
func putBefore[M proto.Message](
	table raftstore.Table[M], before *raftstore.View, tx *raftstore.Tx, restored raftstore.Row[M],
) error {
	was, found, err := table.Get(before, restored.Key)
	switch {
	case err != nil:
		return err
	case !found:
		return table.Delete(tx, restored.Key)
	case proto.Equal(was.Value, restored.Value):
		return nil
	}
	return table.Put(tx, restored.Key, was.Value)
}
