package table

import (
	"google.golang.org/protobuf/proto"

	"github.com/ententehq/entente/raftstore"
)

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

// carryRows makes the domain's rows what they were. Rows that are the same already cost nothing.
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
