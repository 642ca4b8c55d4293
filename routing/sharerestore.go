package routing

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ententehq/entente/raftstore"
)

// surviveRestore keeps an operator's restore from sharing again what was taken back since the snapshot: under an agreement that
// stood before the restore, an export or import that had ended stays ended, and one that was changed stays as it was.
func (m *Manager) surviveRestore(before, restored *raftstore.View, tx *raftstore.Tx) error {
	// An agreement that is not there before the restore says nothing: the cluster may be a new one.
	stood := func(domain string, agreed *timestamppb.Timestamp) (bool, error) {
		a, found, err := m.agreements.With(before, domain)
		return found && a.Since.Equal(agreed.AsTime()), err
	}
	for row, err := range Exports.All(restored, "") {
		if err != nil {
			return err
		}
		e, err := exportFromRow(row)
		if err != nil {
			return err
		}
		if kept, err := stood(e.To, row.Value.GetAgreed()); err != nil {
			return err
		} else if kept {
			if err := asItWas(Exports, before, tx, row); err != nil {
				return err
			}
		}
	}
	for row, err := range Imports.All(restored, "") {
		if err != nil {
			return err
		}
		i, err := importFromRow(row)
		if err != nil {
			return err
		}
		if kept, err := stood(i.From, row.Value.GetAgreed()); err != nil {
			return err
		} else if kept {
			if err := asItWas(Imports, before, tx, row); err != nil {
				return err
			}
		}
	}
	return nil
}

// asItWas makes a restored row what it was before the restore, or nothing.
func asItWas[M proto.Message](table raftstore.Table[M], before *raftstore.View, tx *raftstore.Tx, restored raftstore.Row[M]) error {
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
