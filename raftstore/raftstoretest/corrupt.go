package raftstoretest

import (
	"reflect"
	"testing"

	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/internal/machine"
)

// Corrupt changes one bit of a row in the memory of a member, as a memory does that fails. Nothing else in the program
// can: the state of a store is reached past its type.
func Corrupt(t testing.TB, s *raftstore.Store, table, key string) {
	t.Helper()
	m := (*machine.Machine)(reflect.ValueOf(s).Elem().FieldByName("machine").UnsafePointer())
	row, found := m.State().Get(table, key)
	if !found || len(row.Value) == 0 {
		t.Fatalf("there is no row %s in %s to corrupt", key, table)
	}
	row.Value[len(row.Value)-1] ^= 1
}
