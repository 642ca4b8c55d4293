package table

import (
	"google.golang.org/protobuf/proto"

	"github.com/ententehq/entente/raftstore"
)

// DeleteRows deletes the rows of a domain from a table.
func DeleteRows[M proto.Message](tx *raftstore.Tx, table raftstore.Table[M], td string) error {
	rows, err := table.List(tx, DomainPrefix(td))
	if err != nil {
		return err
	}
	for _, row := range rows {
		if err := table.Delete(tx, row.Key); err != nil {
			return err
		}
	}
	return nil
}

// RestoreRows makes the rows of a domain what they were before a restore. Rows that did not change are not written.
func RestoreRows[M proto.Message](before *raftstore.View, tx *raftstore.Tx, table raftstore.Table[M], td string) error {
	was, err := table.List(before, DomainPrefix(td))
	if err != nil {
		return err
	}
	keep := make(map[string]M, len(was))
	for _, row := range was {
		keep[row.Key] = row.Value
	}
	is, err := table.List(tx, DomainPrefix(td))
	if err != nil {
		return err
	}
	for _, row := range is {
		if value, ok := keep[row.Key]; !ok {
			err = table.Delete(tx, row.Key)
		} else if proto.Equal(value, row.Value) {
			delete(keep, row.Key)
		}
		if err != nil {
			return err
		}
	}
	for _, row := range was {
		if value, ok := keep[row.Key]; ok {
			if err := table.Put(tx, row.Key, value); err != nil {
				return err
			}
		}
	}
	return nil
}
