// Package row has the values that all floors of raftstore share: revisions, prefixes and changes of rows, and the rules
// for the names of rows. Package raftstore exports them under the same names.
package row

import (
	"fmt"
	"slices"
	"strings"
)

// Revision numbers a state of the store: the Raft index of the entry that led to it. An absent row, and a prefix below
// which there never was a row, have revision 0.
type Revision uint64

// ID names a row.
type ID struct{ Table, Key string }

// Prefix names the rows of a table whose key begins with Key; an empty Key is the whole table.
type Prefix struct{ Table, Key string }

// Holds reports whether a row lies below the prefix.
func (p Prefix) Holds(table, key string) bool {
	return p.Table == table && strings.HasPrefix(key, p.Key)
}

// Batch is what one revision changed.
type Batch struct {
	Revision Revision
	// Changes holds each row once, as the revision left it, in no particular order of keys.
	Changes []Change
}

// Change is a row as a revision left it.
type Change struct {
	Table, Key string
	// Value is the encoded message, for the table's Decode; nil means that the row was deleted. It is shared and must
	// not be modified.
	Value []byte
}

// Size returns about how much memory the batch takes.
func (b Batch) Size() int {
	n := 64
	for _, c := range b.Changes {
		n += 64 + len(c.Table) + len(c.Key) + len(c.Value)
	}
	return n
}

// Only returns the part of the batch that is wanted.
func (b Batch) Only(wanted func(Change) bool) Batch {
	unwanted := func(c Change) bool { return !wanted(c) }
	if !slices.ContainsFunc(b.Changes, unwanted) {
		return b
	}
	return Batch{Revision: b.Revision, Changes: slices.DeleteFunc(slices.Clone(b.Changes), unwanted)}
}

// The longest table name and key: keys are names of domains, SPIFFE IDs (2048 bytes) and compounds of those.
const (
	MaxTable = 64
	MaxKey   = 4096
)

const tableCharacters = "abcdefghijklmnopqrstuvwxyz0123456789_.-"

// CheckTable checks the name of a table.
func CheckTable(name string) error {
	if name == "" || len(name) > MaxTable {
		return fmt.Errorf("table name %q is empty or longer than %d bytes", name, MaxTable)
	}
	if strings.ContainsFunc(name, func(c rune) bool { return !strings.ContainsRune(tableCharacters, c) }) {
		return fmt.Errorf("table name %q has a character other than a-z, 0-9, '_', '.' and '-'", name)
	}
	return nil
}

// CheckKey checks the key of a row.
func CheckKey(key string) error {
	if key == "" || len(key) > MaxKey {
		return fmt.Errorf("the key is empty or longer than %d bytes", MaxKey)
	}
	return nil
}

// Check checks the name of a row.
func Check(table, key string) error {
	if err := CheckTable(table); err != nil {
		return err
	}
	return CheckKey(key)
}
