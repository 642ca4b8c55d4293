package machine

import (
	"testing"

	"github.com/hashicorp/raft"
)

// FuzzEntry checks that an entry that does not decode stops the member, and nothing panics.
func FuzzEntry(f *testing.F) {
	f.Add([]byte{8, 1})
	f.Add([]byte{8, 99})
	f.Add([]byte{255})
	f.Fuzz(func(t *testing.T, data []byte) {
		stopped := false
		store := New(func(error) { stopped = true }, func() {})
		response := store.Apply(&raft.Log{Index: 2, Term: 1, Type: raft.LogCommand, Data: data})
		if _, ok := response.([]Outcome); ok == stopped {
			t.Fatalf("stopped: %v, and the response is %v", stopped, response)
		}
	})
}
