package record

import (
	"cmp"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/raftstore"
)

var (
	changes = raftstore.NewTable[*statev1.AdministrativeChange]("administrative_changes").
		NamesWriter(func(c *statev1.AdministrativeChange) string {
			return cmp.Or(c.GetRestoredOn(), c.GetMember())
		}, func(c *statev1.AdministrativeChange, member string) { c.RestoredOn = member })
	head = raftstore.NewTable[*statev1.AdministrativeRecord]("administrative_record")
)

const headKey = "head"

// Limits of the table. The oldest changes are deleted beyond them.
const (
	maxChanges = 4096
	maxBytes   = 1 << 20
	// maxTextBytes bounds each text of a change; longer ones are cut.
	maxTextBytes = 1024
	// deletionsAtOnce bounds what one change deletes, whatever the head of the record contains.
	deletionsAtOnce = 64
)

// number returns the key of a change.
func key(number uint64) string { return fmt.Sprintf("%020d", number) }

// appendChange writes a change to the record within a transaction, and deletes the oldest ones beyond the limits.
func appendChange(tx *raftstore.Tx, c *statev1.AdministrativeChange) error {
	row, _, err := head.Get(tx, headKey)
	if err != nil {
		return err
	}
	h := row.Value
	if h == nil {
		h = &statev1.AdministrativeRecord{}
	}
	h.Next, h.Oldest = max(h.GetNext(), 1), max(h.GetOldest(), 1)
	if err := changes.Put(tx, key(h.GetNext()), c); err != nil {
		return err
	}
	h.Next++
	h.Bytes += uint64(proto.Size(c))
	for range deletionsAtOnce {
		if h.GetOldest()+1 >= h.GetNext() || h.GetNext()-h.GetOldest() <= maxChanges && h.GetBytes() <= maxBytes {
			break
		}
		oldest, found, err := changes.Get(tx, key(h.GetOldest()))
		if err != nil {
			return err
		}
		if found {
			h.Bytes -= min(h.GetBytes(), uint64(proto.Size(oldest.Value)))
			if err := changes.Delete(tx, key(h.GetOldest())); err != nil {
				return err
			}
		}
		h.Oldest++
	}
	return head.Put(tx, headKey, h)
}

// clip cuts a text at the limit.
func clip(s string) string {
	if len(s) > maxTextBytes {
		s = s[:maxTextBytes-len("…")] + "…"
	}
	return strings.ToValidUTF8(s, "?")
}

// Register keeps the record over an operator's restore: it continues as it was, and what the snapshot holds of it is
// dropped. A new cluster that adopts a snapshot continues that of the snapshot.
func Register(store *raftstore.Store) {
	store.Snapshots().Survive("record", survive)
	store.Snapshots().CountAsEmpty(func(_ *raftstore.View, table, _ string) bool {
		return table == changes.Name() || table == head.Name()
	})
}

func survive(before, restored *raftstore.View, tx *raftstore.Tx) error {
	was, _, err := head.Get(restored, headKey)
	if err != nil {
		return err
	}
	now, _, err := head.Get(before, headKey)
	if err != nil || now.Value.GetNext() < was.Value.GetNext() {
		return err
	}
	for row, err := range changes.All(restored, "") {
		if err != nil {
			return err
		}
		if err := changes.Delete(tx, row.Key); err != nil {
			return err
		}
	}
	for row, err := range changes.All(before, "") {
		if err != nil {
			return err
		}
		if err := changes.Put(tx, row.Key, row.Value); err != nil {
			return err
		}
	}
	if now.Value == nil {
		return nil
	}
	return head.Put(tx, headKey, now.Value)
}

// Change is one administrative change in the record.
type Change struct {
	Number   uint64
	Revision raftstore.Revision
	*statev1.AdministrativeChange
}

// MadeAfter returns the changes in the record after a revision, oldest first.
func MadeAfter(r raftstore.Reader, at raftstore.Revision) ([]Change, error) {
	return made(r, func(row raftstore.Row[*statev1.AdministrativeChange]) bool { return row.Revision > at })
}

// MadeOn returns the changes in the record that a member made, or that were made in its name, oldest first.
func MadeOn(r raftstore.Reader, member string) ([]Change, error) {
	return made(r, func(row raftstore.Row[*statev1.AdministrativeChange]) bool {
		return row.Value.GetMember() == member
	})
}

func made(r raftstore.Reader, counts func(raftstore.Row[*statev1.AdministrativeChange]) bool) ([]Change, error) {
	var made []Change
	for row, err := range changes.All(r, "") {
		if err != nil {
			return nil, fmt.Errorf("read the record of administrative changes: %w", err)
		}
		if n, ok := numberOf(row.Key); ok && counts(row) {
			made = append(made, Change{n, row.Revision, row.Value})
		}
	}
	return made, nil
}
