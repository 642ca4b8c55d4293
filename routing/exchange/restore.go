package exchange

import (
	"google.golang.org/protobuf/proto"

	"github.com/ententehq/entente/raftstore"
)

// restore keeps the restore of a snapshot from sharing again what was withdrawn after the snapshot.
type restore struct{ agreements Agreements }

// keepEnded compares exports and imports before and after a restore. Under an agreement that existed before the
// restore, those that had ended stay ended, and those that were changed stay as they were. Without the agreement before
// the restore there is nothing to keep: the cluster may be a new one.
func (s restore) keepEnded(before, restored *raftstore.View, tx *raftstore.Tx) error {
	if err := exportTable.keepEnded(before, restored, tx, func(e serviceExport) (bool, error) {
		a, found, err := s.agreements.With(before, e.To)
		return found && e.counts(a), err
	}); err != nil {
		return err
	}
	return importTable.keepEnded(before, restored, tx, func(i serviceImport) (bool, error) {
		a, found, err := s.agreements.With(before, i.From)
		return found && i.counts(a), err
	})
}

// keepEnded replaces each restored row to which a rule applies by the one before the restore, or deletes it if there
// was none.
func (t parsedTable[M, P]) keepEnded(
	before, restored *raftstore.View, tx *raftstore.Tx, applies func(P) (bool, error),
) error {
	for row, err := range t.All(restored, "") {
		if err != nil {
			return err
		}
		p, err := t.parse(row)
		if err != nil {
			return err
		}
		if kept, err := applies(p); err != nil {
			return err
		} else if !kept {
			continue
		}
		was, found, err := t.Get(before, row.Key)
		switch {
		case err != nil:
		case !found:
			err = t.Delete(tx, row.Key)
		case !proto.Equal(was.Value, row.Value):
			err = t.Put(tx, row.Key, was.Value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
